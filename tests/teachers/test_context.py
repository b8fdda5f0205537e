"""Teachers with a context: scores of the same response tokens after a longer prompt."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch

from fireopd.engines import HFEngine
from fireopd.engines.rollout import collate
from fireopd.errors import UserError
from fireopd.models.loading import encode_chats, load_causal_lm, load_tokenizer
from fireopd.teachers import HFTeacher
from fireopd.teachers.context import align_to, replace_prompts
from fireopd.types import Prompt

EXAMPLES = [{"role": "user", "content": "7;+5"}, {"role": "assistant", "content": "7+5=12;#12"}]


@pytest.fixture
def rollouts(tiny_prompts):
    engine = HFEngine(max_response_length=24)
    engine.setup("tiny/student", torch.device("cpu"))
    return collate(tiny_prompts[:6], engine.generate(tiny_prompts[:6], range(6)), range(6), engine.sampling, 0)


def naive(messages, response):
    """Return log-probability and entropy of each response token after the messages, from the full logits."""
    tokenizer, model = load_tokenizer("tiny/math", "x"), load_causal_lm("tiny/math", "x", "float32").eval()
    prompt = list(encode_chats(tokenizer, [messages], {})[0])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logits.gather(-1, torch.tensor(response)[:, None])[:, 0], -(logits.exp() * logits).sum(-1)


def test_scores_with_a_context_equal_the_reference(rollouts):
    teacher, plain = HFTeacher("tiny/math", context=EXAMPLES), HFTeacher("tiny/math")
    for each in (teacher, plain):
        each.setup("x", torch.device("cpu"))
    scores = teacher.score(rollouts, entropy=True)
    assert scores.logprobs.shape == rollouts.tokens.shape
    assert not scores.logprobs[~rollouts.response_mask].any()
    for row, prompt in enumerate(rollouts.prompts):
        place = rollouts.response_mask[row]
        logprobs, entropy = naive([*EXAMPLES, *prompt.content], rollouts.tokens[row][place].tolist())
        torch.testing.assert_close(scores.logprobs[row][place], logprobs, atol=1e-4, rtol=0)
        torch.testing.assert_close(scores.entropy[row][place], entropy, atol=1e-4, rtol=0)
    assert (scores.logprobs - plain.score(rollouts, entropy=False).logprobs).abs().max() > 0.01


def test_the_context_follows_the_system_message_of_the_prompt():
    teacher = HFTeacher("tiny/math", context=EXAMPLES)
    own = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1;+1"}]
    tokenizer = load_tokenizer("tiny/math", "x")
    (expected,) = encode_chats(tokenizer, [[own[0], *EXAMPLES, own[1]]], {})
    assert teacher.prompt_tokens(Prompt((), "math", "math", None, "p", own)) == expected


def test_the_chat_template_receives_the_options_of_the_prompt(tiny_prompts, monkeypatch):
    seen = []
    monkeypatch.setattr("fireopd.teachers.context.encode_chats", lambda *arguments: seen.append(arguments[2]) or [(1,)])
    prompt = replace(tiny_prompts[0], template_options={"enable_thinking": False})
    HFTeacher("tiny/math", context=EXAMPLES).prompt_tokens(prompt)
    assert seen == [{"enable_thinking": False}]


def test_without_a_context_the_prompt_is_unchanged(tiny_prompts):
    assert HFTeacher("tiny/math").prompt_tokens(tiny_prompts[0]) == tiny_prompts[0].tokens


def test_replacing_prompts_and_aligning_back_is_lossless():
    rollouts = rollouts_of(scored_batch(7, 12))
    moved = replace_prompts(rollouts, [[9] * (1 + row % 4) for row in range(7)])
    assert torch.equal(moved.tokens[moved.response_mask], rollouts.tokens[rollouts.response_mask])
    assert torch.equal(moved.attention_mask.sum(-1), moved.response_mask.sum(-1) + torch.arange(7) % 4 + 1)
    back = align_to(rollouts, moved.sampling_logprobs, moved.response_mask)
    assert torch.equal(back, rollouts.sampling_logprobs * rollouts.response_mask)


def test_plain_text_prompts_are_rejected_with_a_context():
    text = Prompt((5, 6), "x", "math", None, "train.jsonl:3", "5+6")
    with pytest.raises(UserError, match="model.teachers.x.context: 'train.jsonl:3': chat messages cannot precede"):
        HFTeacher("tiny/math", context=EXAMPLES).check("model.teachers.x", "tiny/student", [text], 8)

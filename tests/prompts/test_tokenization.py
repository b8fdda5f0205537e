"""Tokenization of prompts: chats that end with the assistant, templates that refuse, unknown and readable tokens."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from fireopd.errors import UserError
from fireopd.models.loading import encode_chats, load_tokenizer
from fireopd.prompts import PromptText
from fireopd.prompts.tokenization import readable_tokens, tokenize, unknown_token, untokenized

USER, ASSISTANT = {"role": "user", "content": "1;+2"}, {"role": "assistant", "content": "1+2"}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("tiny/student", "x")


def texts_of(*contents):
    return [PromptText(content, "math", "math", None, f"row:{n}") for n, content in enumerate(contents)]


def test_a_final_message_of_the_assistant_is_continued_on_request(tokenizer):
    chats = [[USER], [USER, ASSISTANT], [USER]]
    closed = [tokenizer.decode(tokens) for tokens in encode_chats(tokenizer, chats, {})]
    within = [tokenizer.decode(t) for t in encode_chats(tokenizer, chats, {"continue_final_message": True})]
    assert within == ["<|user|>1;+2<|assistant|>", "<|user|>1;+2<|assistant|>1+2", "<|user|>1;+2<|assistant|>"]
    assert closed[0] == closed[2] == within[0]
    assert closed[1].endswith("<|assistant|>")


def test_the_prompt_that_a_template_refuses_is_named(tokenizer, monkeypatch):
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}1"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    texts = texts_of([USER], "plain", [{"role": "system", "content": "x"}, USER])
    with pytest.raises(UserError, match=r"data.prompts: 'row:2': the chat template refuses it \(no system messages\)"):
        tokenize(texts, tokenizer, {}, "data.prompts")
    with pytest.raises(UserError, match="data.prompts: 'row:0': the chat template refuses it"):
        tokenize(texts[:1], tokenizer, {"return_dict": False}, "data.prompts")


def test_prompts_without_tokens_keep_everything_else():
    (prompt,) = untokenized(texts_of([USER]))
    assert (prompt.tokens, prompt.teacher, prompt.id, prompt.content) == ((), "math", "row:0", [USER])


@pytest.mark.parametrize(
    ("model", "special", "expected"),
    [
        (models.WordLevel({"?": 0, "a": 1}, unk_token="?"), {}, 0),
        (models.Unigram([("a", -1.0), ("?", -2.0)], unk_id=1), {"unk_token": "?"}, 1),
        (models.BPE({"a": 0, "<|end|>": 1}, []), {"unk_token": "<|end|>", "eos_token": "<|end|>"}, None),
    ],
)
def test_the_unknown_token_is_that_of_the_tokenization_model(model, special, expected):
    assert unknown_token(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **special)) == expected


def test_tokens_are_readable(tokenizer):
    tokens = tokenizer("<|user|>1é;<|end|>")["input_ids"]
    assert readable_tokens(tokenizer, tokens) == "<|user|>1<|pad|>;<|end|>"
    assert readable_tokens(tokenizer, tokens, "|") == "<|user|>|1|<|pad|>|;|<|end|>"

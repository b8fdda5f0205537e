"""Prompts and graders of reasoning-gym."""

import pickle
import sys

import pytest
from helpers.fakes import ScriptedEngine

from fireopd.errors import UserError
from fireopd.prompts import MixedPrompts, ReasoningGymPrompts, TinyPrompts
from fireopd.training.data import RolloutDataModule
from fireopd.types import Prompt
from fireopd.verifiers import ReasoningGymVerifier


def source(tasks=None, **settings):
    pytest.importorskip("reasoning_gym", reason="an extra: pip install 'fireopd[reasoning-gym]'")
    defaults = {"num_training": 20, "num_validation": 5}
    return ReasoningGymPrompts(tasks or {"chain_sum": {"max_terms": 3}}, "math", **(defaults | settings))


def prompt(text):
    return Prompt((), text.teacher, text.task, text.answer, text.id, details=text.details)


def test_training_follows_the_seed_and_shares_nothing_with_validation():
    own = source({"chain_sum": {"max_terms": 2, "max_digits": 1}}, num_training=60, num_validation=60)
    first, again, other = (own.training(seed) for seed in (1, 1, 2))
    assert [t.content for t in first] == [t.content for t in again]
    assert [t.content for t in first] != [t.content for t in other]
    training, validation = ({str(t.content) for t in texts} for texts in (first, own.validation()))
    assert len(training) == len(validation) == 60, "no problem comes twice"
    assert not training & validation
    assert len({t.id for t in first}) == 60


def test_each_task_has_its_own_settings_and_its_own_grader():
    texts = source({"chain_sum": {"min_terms": 2, "max_terms": 2}, "countdown": {}}, num_training=3).training(0)
    assert [text.task for text in texts] == ["chain_sum"] * 3 + ["countdown"] * 3
    verifier = ReasoningGymVerifier()
    for text in texts:
        assert verifier(prompt(text), f"so <answer> {text.answer}\n</answer>.") == 1.0
        assert verifier(prompt(text), f"so {text.answer}") == 0.0
    countdown = texts[3]
    spaced = countdown.answer.replace("+", " + ")
    assert verifier(prompt(countdown), f"<answer>({spaced})</answer>") == 1.0, "any way to the target is right"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer>1</answer> no, <answer> 2 </answer>", "2"),
        ("<answer>1</answer> <answer>2", "1"),
        ("1</answer>", None),
        ("<answer>1", None),
        ("", None),
    ],
)
def test_the_answer_is_what_stands_between_the_last_tags(response, answer):
    assert ReasoningGymVerifier().final_answer(response) == answer


def test_an_answer_over_which_a_grader_stumbles_is_wrong():
    (text,) = source({"prime_factorization": {}}, num_training=1).training(0)
    assert ReasoningGymVerifier()(prompt(text), "<answer>two times x</answer>") == 0.0


def test_an_answer_that_takes_for_ever_is_wrong_and_the_next_is_graded():
    (text,) = source({"countdown": {}}, num_training=1).training(0)
    answers = ["9**9**9**9", "(" * 10_000, text.answer]
    grades = ReasoningGymVerifier(timeout=1.0).grade([prompt(text)] * 3, [f"<answer>{a}</answer>" for a in answers])
    assert [v.reward for v in grades][-1] == 1.0
    assert max(v.reward for v in grades[:-1]) < 1.0


def test_prompts_can_go_from_process_to_process():
    (text,) = source({"countdown": {}}, num_training=1).training(0)
    assert pickle.loads(pickle.dumps(text)) == text


@pytest.mark.parametrize(
    ("tasks", "settings", "message"),
    [
        (
            {"chain_sums": {}},
            {},
            r"data.prompts.tasks.chain_sums: .*unknown task .*\. Did you mean .*chain_sum",
        ),
        ({"chain_sum": {"terms": 2}}, {}, r"data.prompts.tasks.chain_sum: .*rejects these settings.*terms"),
        ({"chain_sum": {"min_terms": 5, "max_terms": 2}}, {}, "rejects these settings"),
        (
            {"chain_sum": {"min_terms": 2, "max_terms": 2, "max_digits": 1}},
            {"num_training": 400},
            r"only \d+ of 400 distinct prompts found in 8000 draws",
        ),
    ],
)
def test_what_a_task_does_not_have(tasks, settings, message):
    with pytest.raises(UserError, match=message):
        source(tasks, **settings).training(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": {}}, "tasks must not be empty"),
        ({"num_training": 0}, "num_training must be at least 1, got 0"),
        ({"num_validation": -1}, "num_validation must be at least 0, got -1"),
    ],
)
def test_settings_have_a_range(settings, message):
    with pytest.raises(ValueError, match=message):
        ReasoningGymPrompts(**({"tasks": {"chain_sum": {}}, "teacher": "x"} | settings))


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"needs reasoning_gym, which is not .*pip install 'fireopd\[reasoning-gym\]'"):
        ReasoningGymPrompts({"chain_sum": {}}, "math").training(0)


def test_the_verifier_refuses_before_the_run_what_it_cannot_grade(monkeypatch):
    text = source({"countdown": {}}, num_training=1).training(0)[0]
    ReasoningGymVerifier().check("ours", [prompt(text)])
    for details in ({}, {"task": "countdown"}):
        other = Prompt((), "t", "t", "1", "x.jsonl:3", details=details)
        with pytest.raises(UserError, match=r"ours: .*x.jsonl:3 is not a problem of reasoning-gym"):
            ReasoningGymVerifier().check("ours", [prompt(text), other])
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"ours: .*needs reasoning_gym.*pip install 'fireopd\[reasoning-gym\]'"):
        ReasoningGymVerifier().check("ours", [prompt(text)])


def test_in_a_mixture_each_task_is_graded_as_its_own(monkeypatch):
    gym = source({"chain_sum": {"max_terms": 2, "max_digits": 1}}, num_training=8, system=None)
    monkeypatch.setattr("fireopd.prompts.tokenization.context_length", lambda *arguments: None)
    monkeypatch.setattr("fireopd.training.data.load_tokenizer", lambda *arguments: Characters())
    data = RolloutDataModule(
        prompts=MixedPrompts({"gym": gym, "tiny": TinyPrompts(num_training=8)}), engine=ScriptedEngine(), batch_size=8
    )
    data.setup("fit")
    verifiers = data.source.verifiers
    assert {prompt.source: type(verifiers[prompt.source]).__name__ for prompt in data.training_prompts} == {
        "gym": "ReasoningGymVerifier",
        "tiny": "FinalAnswer",
    }


class Characters:
    """A tokenizer that knows every character."""

    chat_template = "there is one"

    def apply_chat_template(self, chats, **options):
        return {"input_ids": [[ord(c) for message in chat for c in message["content"]] for chat in chats]}

"""Conformance checks of verifiers: each fault is found and named, and a verifier without a fault passes."""

import contextlib
import re
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fireopd.testing import ConformanceWarning, check_verifier, verifier_checks
from fireopd.testing.time_limit import TimeLimitError, time_limit
from fireopd.verifiers import ExactMatch, FinalAnswer, Verifier
from fireopd.verifiers.base import Grade


@dataclass(frozen=True)
class Right(Verifier):
    """The whole response is the answer."""

    seen: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, prompt, response):
        return float(prompt.answer is not None and self.final_answer(response) == prompt.answer)

    def final_answer(self, response):
        return response.strip() or None


def verifier(name, **methods):
    """Return an instance of a class of this module that overrides methods of `Right`."""
    made = dataclass(frozen=True)(type(name, (Right,), methods | {"__module__": __name__, "__doc__": name}))
    globals()[name] = made
    return made()


def reward(name, value):
    return verifier(name, __call__=lambda self, prompt, response: value)


def batch(name, function):
    """Return a verifier that changes the grades of a batch."""
    return verifier(name, grade=lambda self, prompts, responses: function(Right.grade(self, prompts, responses)))


def modify(self, prompt, response):
    prompt.details["seen"] = True
    return Right.__call__(self, prompt, response)


def every_other(self, prompt, response):
    self.seen["calls"] = self.seen.get("calls", 0) + 1
    return Right.__call__(self, prompt, response) * (self.seen["calls"] % 2)


def synonyms(self, prompt, response):
    return float(prompt.answer is not None and response.strip() in ("9", "nine"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (reward("Two", 2.0), r"returned the reward 2 for the response '9'. Return a reward in \[0, 1\]"),
        (reward("Negative", -1.0), "returned the reward -1 for the response '9'"),
        (reward("Nan", float("nan")), "returned the reward nan"),
        (reward("NoReward", None), r"returned a NoneType as the reward .* Return a float in \[0, 1\]"),
        (reward("Graded", Grade(1.0, "9")), "returned a Grade as the reward"),
        (
            verifier("Always", __call__=lambda self, p, r: float(p.answer is None or r == p.answer)),
            "gives '9' the reward 1 without a reference answer",
        ),
        (reward("Never", 0.0), "gives the correct response '9' the reward 0 for the answer '9'"),
        (reward("Half", 0.5), "gives the correct response '9' the reward 0.5"),
        (
            verifier("Lenient", __call__=lambda self, p, r: float(p.answer is not None and p.answer in r)),
            "gives the incorrect response '19' the reward 1",
        ),
        (
            verifier("Parses", __call__=lambda self, p, r: float(p.answer is not None and int(r) == 9)),
            "raises ValueError for the response '' .* Return 0 for what it cannot read",
        ),
        (
            verifier("Encodes", final_answer=lambda self, r: r.encode().decode()),
            r"raises UnicodeEncodeError for the response '\\ud800 half.* Return 0 for what it cannot read",
        ),
        (
            verifier("Splits", __call__=synonyms, final_answer=lambda self, r: r.split()[0]),
            "raises IndexError in final_answer for the response '' .* Return None for what it cannot read",
        ),
        (
            verifier("NeedsAnswer", __call__=lambda self, p, r: float(r.strip() == p.answer.strip())),
            "raises AttributeError without a reference answer .* Return 0 if prompt.answer is None",
        ),
        (verifier("Number", final_answer=lambda self, r: len(r)), "returned a final answer of the type int"),
        (batch("Fewer", lambda grades: grades[1:]), "returned 17 grades of 18 responses"),
        (batch("Rewards", lambda grades: [g.reward for g in grades]), "returned a float for a response"),
        (
            batch("Backwards", lambda grades: grades[::-1]),
            r"grades .* grade\(\) returns them in the order",
        ),
        (batch("Surplus", lambda grades: grades or [Grade(0.0, None)]), "returned 1 grades of 0 responses"),
        (verifier("Modifies", __call__=modify), "modifies its prompt. Copy details before changing them"),
        (verifier("EveryOther", __call__=every_other), "grades .* in another or alone. A grade depends on"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_fault_is_found_with_the_name_of_the_verifier(wrong, message):
    with pytest.raises(AssertionError) as found:
        check_verifier(wrong, "9", correct=["9"], incorrect=["19"])
    text = " ".join(str(found.value).split())
    assert "violates 1 rule of its contract" in text, text
    assert re.search(f"- {type(wrong).__name__} {message}", text), text


def exponential(self, prompt, response):
    return float(prompt.answer is not None and re.fullmatch(r"(9+)+", response) is not None)


def test_a_regular_expression_without_an_end_is_a_fault(monkeypatch):
    """Five thousand nines and a letter need two to the power of 5,000 attempts."""
    monkeypatch.setattr(verifier_checks, "LIMIT", 2.0)
    monkeypatch.setattr(verifier_checks, "RESPONSES", ("9" * 5000 + "x",))
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(AssertionError, match=r"Exponential needs more than 2 s for the response '9+\.\.\.'. Return 0"):
        check_verifier(verifier("Exponential", __call__=exponential), "9", correct=["9"])
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def swallowing(finished):
    with contextlib.suppress(Exception):
        time.sleep(60.0)
        finished.append(True)


def test_a_verifier_that_catches_all_exceptions_has_the_limit():
    finished = []
    with pytest.raises(TimeLimitError), time_limit(0.3):
        swallowing(finished)
    assert not finished


def test_a_limit_that_was_caught_is_raised_at_the_end():
    with pytest.raises(TimeLimitError), time_limit(0.2), contextlib.suppress(TimeLimitError):
        time.sleep(10.0)


def test_a_timer_of_other_code_is_left_alone():
    fired = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: fired.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with time_limit(0.1):
            time.sleep(0.6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert fired == [signal.SIGALRM]


def test_grades_of_a_batch_are_those_of_single_responses():
    wrong = batch("OtherBatch", lambda grades: [Grade(0.0, g.answer) for g in grades])
    with pytest.raises(AssertionError, match=r"(?s)grades '9' as Grade\(reward=0.0.*reward=1.0.* another or\s+alone"):
        check_verifier(wrong, "9", correct=["9"])


def test_a_refused_prompt_is_a_fault():
    with pytest.raises(AssertionError, match="FinalAnswer raises a UserError in a check that it must pass"):
        check_verifier(FinalAnswer(), " ")


@pytest.mark.filterwarnings("error::fireopd.testing.ConformanceWarning")
def test_a_right_verifier_passes():
    check_verifier(Right(), "9", correct=["9", " 9\n"], incorrect=["19"])
    check_verifier(verifier("Numpy", __call__=lambda self, p, r: np.float32(p.answer == r)), "9", correct=["9"])
    check_verifier(verifier("Whole", __call__=lambda self, p, r: p.answer == r), "9", correct=["9"])
    check_verifier(ExactMatch(ignore_case=True), "Yes", correct=["yes", " YES "], incorrect=["no"])
    by_details = verifier("ByDetails", __call__=lambda self, p, r: float(r == p.details["target"]))
    check_verifier(by_details, None, correct=["9"], incorrect=["19"], details={"target": "9"})
    with pytest.raises(TypeError, match=r"is not a Verifier: pass an instance, Right\(...\)"):
        check_verifier(Right)


def test_a_split_vote_is_a_warning():
    with pytest.warns(ConformanceWarning, match="has the final answers .* a majority vote splits"):
        check_verifier(
            verifier("Synonyms", __call__=synonyms),
            correct=["9", "nine"],
        )

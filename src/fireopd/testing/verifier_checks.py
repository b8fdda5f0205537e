"""Conformance checks of verifiers: grades in range, no errors for any text, and the graded examples of the author."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fireopd.testing.checks import report
from fireopd.testing.plugin_checks import paragraph, settings_violations, violations_of
from fireopd.testing.time_limit import TimeLimitError, time_limit
from fireopd.testing.warning import ConformanceWarning
from fireopd.types import Prompt
from fireopd.types.strategy import ContractError
from fireopd.verifiers import Verifier
from fireopd.verifiers.base import Grade
from fireopd.verifiers.contract import checked_grades, verifier_key

__all__ = ["RESPONSES", "check_verifier"]

KEY = verifier_key("")
RESPONSES = (
    "",
    " \n\t",
    "\0\x07\x1b[31m",
    "\ud800 half a surrogate pair",
    "\uff19\uff19 \u0663 \u00bd \u221e \U0001d7d9",
    "9" * 5000,
    "-" * 3000 + "1e999999",
    "1/0",
    "nan inf -inf",
    "\\boxed{" * 300,
    "((((" * 500 + "))",
    "#" * 1000,
    "```python\nwhile True",
    "a " * 20_000,
    "1e5" * 3000,
    "%s {0} {x!r} $answer \\1",
)
"""Responses that break careless parsers."""
LIMIT = 60.0
"""Longest time for the grade of one response, seconds of wall clock."""


@dataclass(frozen=True)
class VerifierCase:
    """A verifier under test with the examples of its author."""

    verifier: Verifier
    prompt: Prompt
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]

    @property
    def examples(self) -> list[str]:
        """All responses."""
        return [*self.correct, *self.incorrect, *RESPONSES]

    def grade(self, responses: Sequence[str], prompt: Prompt | None = None) -> list[Grade]:
        """Return checked grades."""
        rows = [prompt or self.prompt] * len(responses)
        return checked_grades(KEY, self.verifier, self.verifier.grade(rows, responses), rows)

    def grade_alone(self, response: str) -> Grade:
        """Return the checked grade of one response, without `grade`."""
        made = Grade(self.verifier(self.prompt, response), self.verifier.final_answer(response))
        return checked_grades(KEY, self.verifier, [made], [self.prompt])[0]


def check_verifier(
    verifier: Verifier,
    answer: str | None = "9",
    *,
    correct: Sequence[str] = (),
    incorrect: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> None:
    """Check the contract of a verifier.

    Correct responses with different final answers are a `ConformanceWarning`.

    Args:
        verifier: an instance, with any settings.
        answer: reference answer of the prompt.
        correct: responses that must get the reward 1.
        incorrect: responses that must get a reward below 1.
        details: further data of the prompt for the verifier.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    found = settings_violations(verifier, Verifier, frozen=True)
    prompt = Prompt((), "kit", "kit", answer, "kit:0", content="3*3", details=dict(details or {}))
    case = VerifierCase(verifier, prompt, tuple(correct), tuple(incorrect))
    report(found + violations_of(type(verifier).__name__, case, CHECKS, decisive=2), verifier)
    answers = {grade.answer for grade in case.grade(case.correct)} if correct else set()
    if len(answers) > 1:
        problem = f"has the final answers {sorted(map(str, answers))} for correct responses: a majority vote splits"
        warnings.warn(f"{verifier!r} {problem}", ConformanceWarning, stacklevel=2)


def accepts_the_prompt(case: VerifierCase) -> str:
    """Check that `check` accepts the prompt of the examples."""
    case.verifier.check(KEY, [case.prompt])
    return ""


def grades_every_text(case: VerifierCase) -> str:
    """Check that every response has a valid grade, no response raises an error, and the prompt is unchanged."""
    if case.grade([]):
        return "returns grades of no responses. Return an empty list."
    before = copy.deepcopy(case.prompt)
    for response in case.examples:
        shown = repr(response if len(response) <= 40 else response[:37] + "...")
        place, remedy = "", "Return 0"
        try:
            with time_limit(LIMIT):
                reward = case.verifier(case.prompt, response)
                place, remedy = " in final_answer", "Return None"
                answer = case.verifier.final_answer(response)
            checked_grades(KEY, case.verifier, [Grade(reward, answer)], [case.prompt])
        except ContractError as error:
            return paragraph(error).replace("a response to the prompt kit:0", f"the response {shown}")
        except TimeLimitError:
            return f"needs more than {LIMIT:g} s{place} for the response {shown}. {remedy} for what takes that long."
        except Exception as error:  # a verifier can raise anything
            kind = type(error).__name__
            return f"raises {kind}{place} for the response {shown} ({error}). {remedy} for what it cannot read."
    case.grade(case.examples)
    return "" if case.prompt == before else "modifies its prompt. Copy details before changing them."


def grades_batches_alike(case: VerifierCase) -> str:
    """Check that a grade does not depend on the batch, its order or earlier calls."""
    together = case.grade(case.examples)
    backwards = case.grade(case.examples[::-1])[::-1]
    alone = [case.grade_alone(response) for response in case.examples]
    for response, *grades in zip(case.examples, together, backwards, alone, strict=True):
        if any(grade != grades[0] for grade in grades):
            return (
                f"grades {response[:40]!r} as {grades[0]} in a batch and as {grades[1]} or {grades[2]} in another or "
                f"alone. A grade depends on prompt and response only; grade() returns them in the order of responses."
            )
    return ""


def grades_prompts_without_an_answer(case: VerifierCase) -> str:
    """Check a prompt without a reference answer, whose responses are not correct."""
    if case.prompt.details:
        return ""
    prompt = replace(case.prompt, answer=None)
    try:
        wrong = [response for response in case.examples if case.grade([response], prompt)[0].reward >= 1]
    except ContractError:
        raise
    except Exception as error:  # a verifier can raise anything
        return f"raises {type(error).__name__} without a reference answer ({error}). Return 0 if prompt.answer is None."
    return (
        f"gives {wrong[0]!r} the reward 1 without a reference answer. Return 0 if prompt.answer is None."
        if wrong
        else ""
    )


def grades_the_examples(case: VerifierCase) -> str:
    """Check the examples of the author."""
    for responses, right in ((case.correct, True), (case.incorrect, False)):
        for response, grade in zip(responses, case.grade(responses), strict=True):
            if (grade.reward >= 1) != right:
                kind = "correct" if right else "incorrect"
                return (
                    f"gives the {kind} response {response!r} the reward {grade.reward:g} for the answer "
                    f"{case.prompt.answer!r}; a reward of 1 counts as correct."
                )
    return ""


CHECKS = (
    accepts_the_prompt,
    grades_every_text,
    grades_batches_alike,
    grades_prompts_without_an_answer,
    grades_the_examples,
)

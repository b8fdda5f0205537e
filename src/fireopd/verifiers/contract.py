"""Contract of verifiers: checks of their grades, once per batch."""

import math
from collections.abc import Sequence
from numbers import Real

from fireopd.types import Prompt
from fireopd.types.strategy import ContractError
from fireopd.verifiers.base import Grade, Verifier

__all__ = ["checked_grades", "verifier_key"]

ROUNDING = 1e-6
"""Largest distance from 0 or 1 that is taken for rounding: a reward of 1 counts as correct."""


def verifier_key(source: str) -> str:
    """Return the setting that holds the verifier of a prompt source; the name of a single source is empty."""
    return f"data.prompts.sources.{source}.verifier" if source else "data.prompts.verifier"


def checked_grades(key: str, verifier: Verifier, grades: object, prompts: Sequence[Prompt]) -> list[Grade]:
    """Return a verifier's grades, their rewards as float; those within rounding of 0 or 1 are 0 or 1.

    Args:
        key: setting that holds the verifier.
        verifier: the verifier.
        grades: its result.
        prompts: prompt of each graded response.

    Raises:
        ContractError: unless there is one `Grade` per response, with a reward in [0, 1] and an answer that is text or
            None.
    """
    if not isinstance(grades, list | tuple):
        raise _error(key, verifier, f"returned a {type(grades).__name__}", "return a list of Grade")
    if len(grades) != len(prompts):
        problem = f"returned {len(grades)} grades of {len(prompts)} responses"
        raise _error(key, verifier, problem, "return one grade per response, in the order of the responses")
    for prompt, grade in zip(prompts, grades, strict=True):
        problem, remedy = _problem(grade)
        if problem:
            raise _error(key, verifier, f"returned {problem} for a response to the prompt {prompt.id}", remedy)
    return [Grade(_snapped(float(grade.reward)), grade.answer) for grade in grades]


def _snapped(reward: float) -> float:
    return float(round(reward)) if abs(reward - round(reward)) <= ROUNDING else reward


def _problem(grade: object) -> tuple[str, str]:
    """Return problem and remedy of a grade; the problem is empty if it has none."""
    if not isinstance(grade, Grade):
        return f"a {type(grade).__name__}", "return a Grade(reward, answer) for each response"
    reward, answer = grade.reward, grade.answer
    if not isinstance(reward, Real):
        return f"a {type(reward).__name__} as the reward", "return a float in [0, 1]"
    if not (math.isfinite(reward) and -ROUNDING <= reward <= 1 + ROUNDING):
        return f"the reward {float(reward):.6g}", "return a reward in [0, 1]: scale partial credit"
    if not (answer is None or isinstance(answer, str)):
        return f"a final answer of the type {type(answer).__name__}", "return text, or None if there is no answer"
    return "", ""


def _error(key: str, verifier: Verifier, problem: str, remedy: str) -> ContractError:
    return ContractError.of(key, verifier, "check_verifier", problem, remedy)

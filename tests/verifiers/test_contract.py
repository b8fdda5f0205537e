"""Contract of verifiers: each invalid grade names the setting, the verifier, the grade and the remedy."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fireopd.types import Prompt
from fireopd.types.strategy import ContractError
from fireopd.verifiers import Verifier
from fireopd.verifiers.base import Grade
from fireopd.verifiers.grading import grade


@dataclass(frozen=True)
class Answering(Verifier):
    """Returns any grades."""

    grades: Any

    def __call__(self, prompt, response):
        return self.grade([prompt], [response])[0].reward

    def final_answer(self, response):
        return response

    def grade(self, prompts, responses):
        return self.grades


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        (None, "returned a NoneType. Return a list of Grade"),
        ([Grade(1.0, "a")] * 2, "returned 2 grades of 1 responses"),
        ([1.0], "returned a float for a response to the prompt p. Return a Grade"),
        ([Grade(2.0, "a")], r"returned the reward 2 for a response to the prompt p. Return a reward in \[0, 1\]"),
        ([Grade(-0.1, "a")], "the reward -0.1"),
        ([Grade(math.nan, "a")], "the reward nan"),
        ([Grade(None, "a")], "a NoneType as the reward"),
        ([Grade(torch.tensor(1.0), "a")], "a Tensor as the reward"),
        ([Grade(1.0, 3)], "a final answer of the type int .* Return text, or None"),
    ],
)
@pytest.mark.parametrize(
    ("source", "key"), [("", "data.prompts.verifier"), ("own", "data.prompts.sources.own.verifier")]
)
def test_an_invalid_grade_names_the_verifier(grades, message, source, key):
    prompts = [Prompt((), "t", "t", "1", "p", source=source)]
    with pytest.raises(ContractError, match=f"^{key}: 'Answering': .*{message}.*check_verifier tests the contract"):
        grade(prompts, ["1"], {source: Answering(grades)})


@pytest.mark.parametrize("reward", [0, 1, True, 0.5, 1 + 1e-9])
def test_grades_within_the_contract_are_accepted(reward):
    prompts = [Prompt((), "t", "t", "1", "p")]
    assert grade(prompts, ["1"], {"": Answering([Grade(reward, None)])})[0].reward == min(reward, 1)


@pytest.mark.parametrize(("reward", "exact"), [(1 - 1e-7, 1.0), (1 + 1e-7, 1.0), (-1e-7, 0.0), (1e-7, 0.0), (0.5, 0.5)])
def test_rewards_within_rounding_of_a_whole_one_are_exact(reward, exact):
    """A reward of 1 counts as correct."""
    [graded] = grade([Prompt((), "t", "t", "1", "p")], ["1"], {"": Answering([Grade(reward, None)])})
    assert graded.reward == exact


def test_the_traceback_of_a_verifier_names_it():
    class Failing(Answering):
        def grade(self, prompts, responses):
            raise IndexError("list index out of range")

    with pytest.raises(IndexError) as failure:
        grade([Prompt((), "t", "t", "1", "row 7")], ["1"], {"": Failing([])})
    note = "fireopd: data.prompts.verifier: Failing grades 1 responses, the first to the prompt row 7."
    assert failure.value.__notes__ == [note]

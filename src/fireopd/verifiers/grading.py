"""Grading a batch: each response by the verifier of its prompt."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from fireopd.types import Prompt
from fireopd.verifiers.base import Verdict, Verifier


def grade(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
    """Have each prompt's verifier grade its response.

    Raises:
        ValueError: if a prompt has no verifier.
    """
    verdicts: list[Verdict | None] = [None] * len(prompts)
    for verifier, rows in rows_of_each_verifier(prompts):
        found = verifier.grade([prompts[row] for row in rows], [responses[row] for row in rows])
        for row, verdict in zip(rows, found, strict=True):
            verdicts[row] = verdict
    return cast(list[Verdict], verdicts)


def rows_of_each_verifier(prompts: Sequence[Prompt]) -> list[tuple[Verifier, list[int]]]:
    """Return each verifier with the indices of the prompts whose responses it grades.

    Raises:
        ValueError: if a prompt has none.
    """
    found: list[tuple[Verifier, list[int]]] = []
    for row, prompt in enumerate(prompts):
        if prompt.verifier is None:
            raise ValueError(f"the prompt {prompt.id} has no verifier, and its response is to be graded")
        rows = next((rows for verifier, rows in found if verifier == prompt.verifier), None)
        if rows is None:
            found.append((prompt.verifier, [row]))
        else:
            rows.append(row)
    return found


def ballot(verdicts: Sequence[Verdict]) -> tuple[Tensor, Tensor]:
    """Return the rewards, float32 [B], and the votes, int64 [B]: equal for equal final answers, -1 for none."""
    numbers: dict[str, int] = {}
    votes = [-1 if v.answer is None else numbers.setdefault(v.answer, len(numbers)) for v in verdicts]
    return torch.tensor([v.reward for v in verdicts], dtype=torch.float32), torch.tensor(votes, dtype=torch.int64)

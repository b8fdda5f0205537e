"""Grading of a batch: each response by the verifier of its prompt's source."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from fireopd.errors import named_in_traceback
from fireopd.types import Prompt
from fireopd.verifiers.base import Grade, Verifier
from fireopd.verifiers.contract import checked_grades, verifier_key

__all__ = ["check_verifiers", "grade", "rewards_and_votes", "rows_by_source"]


def grade(prompts: Sequence[Prompt], responses: Sequence[str], verifiers: Mapping[str, Verifier]) -> list[Grade]:
    """Grade each response with the verifier of its prompt's source.

    Args:
        prompts: [B] prompts.
        responses: [B] responses as text.
        verifiers: verifiers by `Prompt.source`.

    Raises:
        ValueError: if there is no verifier for the source of a prompt.
        ContractError: if the grades of a verifier are invalid.
    """
    check_verifiers(prompts, verifiers)
    grades: list[Grade | None] = [None] * len(prompts)
    for source, rows in rows_by_source(prompts).items():
        verifier, own = verifiers[source], [prompts[row] for row in rows]
        key, action = verifier_key(source), f"grades {len(rows)} responses, the first to the prompt {own[0].id}"
        with named_in_traceback(key, verifier, action):
            graded = verifier.grade(own, [responses[row] for row in rows])
        found = checked_grades(key, verifier, graded, own)
        for row, grade_of_row in zip(rows, found, strict=True):
            grades[row] = grade_of_row
    return cast(list[Grade], grades)


def rows_by_source(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """Return the indices of the prompts of each source."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt.source, []).append(row)
    return rows


def check_verifiers(prompts: Sequence[Prompt], verifiers: Mapping[str, Verifier]) -> None:
    """Check that the source of every prompt has a verifier.

    Raises:
        ValueError: that names the first prompt without a verifier.
    """
    for prompt in prompts:
        if prompt.source not in verifiers:
            source = f"prompt source {prompt.source!r}" if prompt.source else "prompt source"
            known = f"; the sources with a verifier are {', '.join(verifiers)}" if any(verifiers) else ""
            raise ValueError(f"the {source} has no verifier for the responses to {prompt.id}{known}")


def rewards_and_votes(grades: Sequence[Grade]) -> tuple[Tensor, Tensor]:
    """Return rewards, float32 [B], and votes, int64 [B]: equal for equal final answers, -1 without an answer."""
    numbers: dict[str, int] = {}
    votes = [-1 if g.answer is None else numbers.setdefault(g.answer, len(numbers)) for g in grades]
    return torch.tensor([g.reward for g in grades], dtype=torch.float32), torch.tensor(votes, dtype=torch.int64)

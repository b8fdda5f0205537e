"""Trajectories of a scored batch for display: selection, texts, filter decisions and token values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd import reductions
from fireopd.analysis.view.quantities import token_values
from fireopd.analysis.view.token_texts import decode_tokens
from fireopd.types import ScoredBatch
from fireopd.types.targets import Targets

__all__ = ["MOST_TOKENS", "View", "select_rows", "split_evenly"]

MOST_TOKENS = 300_000
"""Default maximum of response tokens on a page, about ten megabytes."""


@dataclass(frozen=True)
class View:
    """Scored batch with the targets of a method."""

    batch: ScoredBatch
    """Scored batch of N trajectories."""
    targets: Targets
    """Targets of the method."""
    reasons: Sequence[str]
    """[N] strings: the criterion of the filter for each trajectory."""

    @property
    def scores(self) -> Tensor:
        """float32 [N]. Mean log-probability of each response under its teacher, else under the student."""
        return reductions.row_mean(self.batch.signals[f"{self.scored_by}_logprobs"], self.batch.response_mask)

    @property
    def scored_by(self) -> str:
        """Model whose log-probabilities define the scores: teacher or student."""
        return "teacher" if "teacher_logprobs" in self.batch.signals else "student"

    def describe(self, rows: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
        """Return rows as dictionaries of texts and numbers, with float32 [T] tensors by quantity under `values`."""
        values, scores = token_values(self.batch, self.targets), self.scores.tolist()
        return [self._describe(row, scores[row], values, tokenizer) for row in rows]

    def _describe(
        self, row: int, score: float, values: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Any]:
        batch, mask = self.batch, self.batch.response_mask[row].cpu()
        start = int(mask.int().argmax()) if mask.any() else len(mask)
        tokens = batch.tokens[row].cpu()
        return {
            "step": batch.policy_version,
            "group": int(batch.groups[row]),
            "teacher": batch.teachers[row],
            "task": batch.tasks[row] if batch.tasks else None,
            "kept": bool(self.targets.keep[row]),
            "reason": self.reasons[row],
            "score": score,
            "reward": batch.signals["rewards"][row].item() if "rewards" in batch.signals else None,
            "finished": bool(batch.finished[row]),
            "prompt": tokenizer.decode(tokens[:start].tolist()),
            "tokens": decode_tokens(tokenizer, tokens[mask].tolist()),
            "values": {name: own[row][mask] for name, own in values.items()},
        }


def select_rows(view: View, number: int | None = None, most_tokens: int = MOST_TOKENS) -> list[int]:
    """Return row indices evenly spaced in the ranking by score, highest score first.

    Args:
        view: view of N trajectories.
        number: maximum number of rows; None to derive it from `most_tokens` and the mean length, at least 1.
        most_tokens: maximum number of response tokens, used without a number.
    """
    order = view.scores.argsort(descending=True, stable=True).tolist()
    if number is None:
        number = max(1, int(most_tokens / max(1.0, view.batch.lengths.float().mean().item())))
    places = torch.linspace(0, len(order) - 1, min(number, len(order)), dtype=torch.float64).round().int()
    return [order[place] for place in places.tolist()]


def split_evenly(number: int, sizes: Sequence[int]) -> list[int]:
    """Split a number of rows over views of given sizes as evenly as possible."""
    parts = [0] * len(sizes)
    for place, view in enumerate(sorted(range(len(sizes)), key=lambda view: sizes[view])):
        parts[view] = min(sizes[view], (number - sum(parts)) // (len(sizes) - place))
    return parts

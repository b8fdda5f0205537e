"""What is shown of trajectories: which of a batch, their texts, the verdict on them, their tokens' numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd import reductions
from fireopd.analysis.view.quantities import measured
from fireopd.analysis.view.token_texts import pieces
from fireopd.types import ScoredBatch
from fireopd.types.targets import Targets

MOST_TOKENS = 300_000
"""Response tokens on a page where no number of trajectories is set: some ten megabytes."""


@dataclass(frozen=True)
class View:
    """A scored batch with what a method makes of it."""

    batch: ScoredBatch
    """N trajectories."""
    targets: Targets
    """What the method makes of them."""
    reasons: Sequence[str]
    """[N]. By what the filter judged each, in a few words."""

    @property
    def scores(self) -> Tensor:
        """float32 [N]. Mean log-probability of each response under its teacher, or the student for want of one."""
        return reductions.row_mean(self.batch.signals[f"{self.judge}_logprobs"], self.batch.response_mask)

    @property
    def judge(self) -> str:
        """Whose log-probabilities the scores are: teacher or student."""
        return "teacher" if "teacher_logprobs" in self.batch.signals else "student"

    def describe(self, rows: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
        """Return what is shown of some rows: strings, numbers, and float32 [T] by name under `numbers`."""
        numbers, scores = measured(self.batch, self.targets), self.scores.tolist()
        return [self._describe(row, scores[row], numbers, tokenizer) for row in rows]

    def _describe(
        self, row: int, score: float, numbers: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase
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
            "pieces": pieces(tokenizer, tokens[mask].tolist()),
            "numbers": {name: values[row][mask] for name, values in numbers.items()},
        }


def spread(view: View, number: int | None = None, most_tokens: int = MOST_TOKENS) -> list[int]:
    """Return rows evenly spread over the ranks of the scores, the judge's favourites first.

    Args:
        view: of N trajectories.
        number: of rows, at most; None for as many as their mean length lets `most_tokens` hold, at least one.
        most_tokens: response tokens, where no number is given.
    """
    order = view.scores.argsort(descending=True, stable=True).tolist()
    if number is None:
        number = max(1, int(most_tokens / max(1.0, view.batch.lengths.float().mean().item())))
    places = torch.linspace(0, len(order) - 1, min(number, len(order)), dtype=torch.float64).round().int()
    return [order[place] for place in places.tolist()]


def shares(number: int, sizes: Sequence[int]) -> list[int]:
    """Return how many of a number fall to each of several views of given sizes: as alike as it goes, and all of it."""
    parts = [0] * len(sizes)
    for place, view in enumerate(sorted(range(len(sizes)), key=lambda view: sizes[view])):
        parts[view] = min(sizes[view], (number - sum(parts)) // (len(sizes) - place))
    return parts

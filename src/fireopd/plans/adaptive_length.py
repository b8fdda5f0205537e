"""Response length that follows the lengths that matter: Prune-OPD."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from fireopd.plans.base import RolloutPlan, check_length
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.plans.summary import BatchSummary
from fireopd.types import Prompt
from fireopd.types.strategy_state import Remembers, remembered

__all__ = ["AdaptiveLength"]


@dataclass(frozen=True)
class AdaptiveLength(Remembers, RolloutPlan):
    """Cuts rollouts where the tokens have no weight any more: the adaptive length of Prune-OPD (arXiv 2605.07804).

    After each batch, the limit moves towards margin x the quantile of the effective lengths of the kept trajectories:
    limit = decay limit + (1 - decay) margin quantile. The effective length is the number of tokens with a weight above
    1e-8, which `OverlapDecayWeighter` lowers to 0. The paper's rule is not published; this is that of SimOPD, with its
    defaults. The limit starts at that of the engine. Validation has full responses.
    """

    quantile: float = 0.9
    """Quantile of the effective lengths, in (0, 1]."""
    margin: float = 1.25
    """Factor of the quantile, at least 1: above 1, the limit can grow again."""
    decay: float = 0.7
    """Part of the limit that stays after a batch, in [0, 1)."""
    shortest: int = 256
    """Lower bound of the limit, tokens, at least 1."""
    state: SimpleNamespace = remembered(limit=None)  # noqa: RUF009 - a field
    """The limit, tokens; None before the first batch."""

    cuts_responses = True

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not 0 < self.quantile <= 1:
            raise ValueError(f"quantile must be greater than 0 and at most 1, got {self.quantile}")
        if not self.margin >= 1:
            raise ValueError(f"margin must be at least 1, got {self.margin}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be at least 0 and less than 1, got {self.decay}")
        if self.shortest < 1:
            raise ValueError(f"shortest must be at least 1, got {self.shortest}")

    def check(self, key: str, prompts: Sequence[Prompt], max_length: int) -> None:
        """Raise `UserError` if the lower bound exceeds the length of the engine."""
        check_length(key, "shortest", self.shortest, max_length)

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return rows of the present limit."""
        limit = now.max_length if self.state.limit is None else math.ceil(self.state.limit)
        return [RowPlan(min(max(limit, self.shortest), now.max_length))] * now.responses

    def observe(self, summary: BatchSummary) -> None:
        """Move the limit; a batch without a kept trajectory leaves it."""
        lengths = summary.effective_lengths[summary.kept]
        if not len(lengths):
            return
        target = self.margin * torch.quantile(lengths.double(), self.quantile).item()
        limit = summary.longest if self.state.limit is None else self.state.limit
        self.state.limit = max(self.decay * limit + (1 - self.decay) * target, self.shortest)

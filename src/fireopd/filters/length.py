"""Filter by response length."""

from dataclasses import dataclass

from torch import Tensor

from fireopd.filters.base import TrajectoryFilter
from fireopd.types import ScoredBatch

__all__ = ["LengthFilter"]


@dataclass(frozen=True)
class LengthFilter(TrajectoryFilter):
    """Keeps responses within a range of lengths, optionally only finished ones."""

    min_tokens: int = 1
    """Minimum length of kept responses, tokens."""
    max_tokens: int | None = None
    """Maximum length of kept responses, tokens; None for no limit."""
    only_finished: bool = False
    """Drop responses truncated at the length limit."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens must be at least 0, got {self.min_tokens}")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens must be at least min_tokens = {self.min_tokens}, got {self.max_tokens}")

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]."""
        keep = batch.lengths >= self.min_tokens
        if self.max_tokens is not None:
            keep &= batch.lengths <= self.max_tokens
        return keep & batch.finished if self.only_finished else keep

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the length of each response, and whether it was truncated."""
        cut = [" and cut" * (self.only_finished and not finished) for finished in batch.finished.tolist()]
        limits = f"{self.min_tokens} to {'any number' if self.max_tokens is None else self.max_tokens}"
        return [f"{n} tokens{c}, wanted {limits}" for n, c in zip(batch.lengths.tolist(), cut, strict=True)]

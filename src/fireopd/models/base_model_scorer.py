"""Scores of a frozen model with the weights of a student that has an adapter: one copy serves both."""

from typing import Any

from torch import Tensor

from fireopd.models.adapter import Adapter
from fireopd.models.scorer import CausalScorer
from fireopd.types import TokenScores

__all__ = ["BaseModelScorer"]


class BaseModelScorer(CausalScorer):
    """Scorer of the model below an adapter."""

    def __init__(self, student: CausalScorer, adapter: Adapter) -> None:
        """Share a student's weights.

        Args:
            student: student, with the adapter attached.
            adapter: its adapter.
        """
        super().__init__(student.model, student.chunk_logits, student.kernels)
        self.student, self.adapter = student, adapter

    @property
    def sharded(self) -> bool:
        """True if the student is sharded over the processes."""
        return self.student.sharded

    def forward(self, tokens: Tensor, mask: Tensor, **settings: Any) -> TokenScores:
        """Score tokens without the adapter; see `CausalScorer.forward`."""
        own = self.student.chunk_logits, self.student.kernels
        try:
            self.student.chunk_logits, self.student.kernels = self.chunk_logits, self.kernels
            with self.adapter.without(self.student.model):
                # Through the student's forward pass, in which a sharded model gathers its weights.
                scores: TokenScores = self.student(tokens, mask, **settings)
        finally:
            self.student.chunk_logits, self.student.kernels = own
        return scores

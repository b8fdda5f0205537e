"""Scores of other weights with the modules of the student, for example without its adapter: one copy serves both."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from fireopd.models.adapter import Adapter
from fireopd.models.scorer import CausalScorer
from fireopd.types import TokenScores

__all__ = ["BaseModelScorer", "SharedScorer"]


class SharedScorer(CausalScorer):
    """Scorer that computes with the student's modules, whose weights differ during the forward pass."""

    def __init__(self, student: CausalScorer) -> None:
        """Share a student's modules."""
        super().__init__(student.model, student.chunk_logits, student.kernels)
        self.student = student

    @property
    def sharded(self) -> bool:
        """True if the student is sharded over the processes."""
        return self.student.sharded

    @abstractmethod
    def weights(self) -> AbstractContextManager[None]:
        """Return a context in which the student has the other weights."""

    def forward(self, tokens: Tensor, mask: Tensor, **settings: Any) -> TokenScores:
        """Score tokens with the other weights; see `CausalScorer.forward`."""
        own = self.student.chunk_logits, self.student.kernels
        try:
            self.student.chunk_logits, self.student.kernels = self.chunk_logits, self.kernels
            with self.weights():
                # Through the student's forward pass, in which a sharded model gathers its weights.
                scores: TokenScores = self.student(tokens, mask, **settings)
        finally:
            self.student.chunk_logits, self.student.kernels = own
        return scores


class BaseModelScorer(SharedScorer):
    """Scorer of the model below an adapter."""

    def __init__(self, student: CausalScorer, adapter: Adapter) -> None:
        """Share a student's weights.

        Args:
            student: student, with the adapter attached.
            adapter: its adapter.
        """
        super().__init__(student)
        self.adapter = adapter

    def weights(self) -> AbstractContextManager[None]:
        """Skip the adapter."""
        return self.adapter.without(self.student.model)

"""A weighter that looks where student and teacher disagree."""

from dataclasses import dataclass

from torch import Tensor

from fireopd import ScoredBatch, TokenWeighter


@dataclass(frozen=True)
class GapWeighter(TokenWeighter):
    """More weight where student and teacher disagree."""

    power: float = 1.0
    """Exponent on the gap between the two log-probabilities, in nats."""

    requires = frozenset({"student_logprobs", "teacher_logprobs"})

    def __call__(self, batch: ScoredBatch) -> Tensor:
        """Return float32 [N, L]."""
        return (batch.teacher_logprobs - batch.student_logprobs).abs() ** self.power

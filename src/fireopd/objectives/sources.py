"""Authors of tokens that an objective is wrong for, refused before a run and at the first batch with such tokens."""

from fireopd.errors import UserError
from fireopd.objectives.base import Objective
from fireopd.types import ScoredBatch, Source

__all__ = ["check_batch_sources", "check_sources"]

WRITTEN = {
    Source.STUDENT: "tokens that the student samples",
    Source.TEACHER: "tokens that a teacher writes",
    Source.GIVEN: "given tokens",
}
"""Tokens by their author, as in messages."""


def check_sources(objective: Objective, sources: frozenset[Source], origin: str) -> None:
    """Check that an objective is exact at the tokens that it trains on.

    Args:
        objective: the objective.
        sources: authors of the response tokens.
        origin: where the tokens come from, for example `data.plan TeacherMix`.

    Raises:
        UserError: unless it is exact for all authors; given tokens count only if it trains on them.
    """
    trained = sources if objective.trains_given else sources - {Source.GIVEN}
    for source in sorted(trained - objective.exact_for):
        problem = f"its gradient is wrong at {WRITTEN[source]}, which {origin} has: it estimates from sampled tokens"
        remedy = "use a divergence over the vocabulary, for example GeneralizedJSD, or data.plan FixedPlan"
        raise UserError("model.objective", type(objective).__name__, problem, remedy)


def check_batch_sources(objective: Objective, batch: ScoredBatch, origin: str = "the batch") -> None:
    """Check the authors of the response tokens of a batch; see `check_sources`."""
    if batch.sources is None:
        return
    others = [s for s in (Source.TEACHER, Source.GIVEN) if (batch.tokens_by(s) & batch.response_mask).any()]
    check_sources(objective, frozenset(others), origin)

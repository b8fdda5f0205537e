"""Scoring of a rollout batch by all models, for the declared signals only."""

from collections.abc import Mapping

from fireopd.models.distributions import DistributionComparison, TeacherDistributions, joint_signals
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.teachers import Teacher, score_by_base, score_by_teachers
from fireopd.training.stopwatch import Stopwatch
from fireopd.types import RolloutBatch, ScoredBatch
from fireopd.types.signals import JOINT

__all__ = ["score_batch"]


def score_batch(
    rollouts: RolloutBatch,
    student: CausalScorer | None,
    teachers: Mapping[str, Teacher],
    base: Teacher | None,
    watch: Stopwatch,
    *,
    signals: frozenset[str],
    distributions: bool,
    top_k: int,
    token_budget: int,
) -> tuple[ScoredBatch, TeacherDistributions | None]:
    """Score trajectories with teachers, base model and student, in this order. Recorded scores are not computed again.

    Args:
        rollouts: B trajectories.
        student: student before the update; None if its scores come from the forward passes of the update.
        teachers: teachers by name; each scores its own rows.
        base: base model, which scores all rows if its signal is declared.
        watch: adds up the seconds of each model.
        signals: names of the declared signals.
        distributions: True if the teachers' distributions are needed.
        top_k: number of most likely tokens for the top-k signals.
        token_budget: tokens of a micro-batch of the student.

    Returns:
        The scored trajectories, and the teachers' distributions if they are needed, else None.

    Raises:
        ContractError: if the result of a teacher or of the base model is invalid.
    """
    scored, known, comparison = {"sampling_logprobs": rollouts.sampling_logprobs}, None, None
    if rollouts.recorded is not None:
        scored = {name: values for name, values in rollouts.recorded.values.items() if name in signals}
    elif distributions or signals & {"teacher_logprobs", "teacher_entropy"}:
        entropy = "teacher_entropy" in signals
        scores, known = score_by_teachers(teachers, rollouts, watch, entropy=entropy, distributions=distributions)
        scored |= scores.named("teacher")
    if base is not None and "base_logprobs" in signals - scored.keys():
        with watch("base"):
            scored |= score_by_base(base, rollouts).named("base")
    if known is not None and signals & JOINT:
        comparison = DistributionComparison(known, joint_signals(signals & JOINT, top_k))
    if student is not None:
        entropy = "student_entropy" in signals
        with watch("student"):
            own = score_rollouts(student, rollouts, entropy=entropy, token_budget=token_budget, comparison=comparison)
        scored |= own.named("student")
    if rollouts.rewards is not None:
        scored["rewards"] = rollouts.rewards
    return ScoredBatch.of(rollouts, scored), known

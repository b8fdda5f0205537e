"""Having all models read a rollout batch: for the signals that the strategies declare, and no others."""

from collections.abc import Mapping

from fireopd.models.distributions import DistributionComparison, TeacherDistributions, joint_signals
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.teachers import Teacher, score_by_teachers
from fireopd.training.stopwatch import Stopwatch
from fireopd.types import RolloutBatch, ScoredBatch
from fireopd.types.signals import JOINT


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
    """Have teachers and base model read trajectories, and last the student, beside the teachers' distributions.

    Args:
        rollouts: B trajectories.
        student: as it is now; none if it is to read them in its update.
        teachers: by name; each reads its own rows.
        base: reads all rows, if its signal is declared.
        watch: takes the seconds of each model.
        signals: what is declared.
        distributions: whether the teachers' distributions are needed.
        top_k: how many of the likeliest tokens the signals about those are about.
        token_budget: tokens a micro-batch of the student.

    Returns:
        The scored trajectories, and the teachers' distributions if they are needed.
    """
    read, known, comparison = {"sampling_logprobs": rollouts.sampling_logprobs}, None, None
    if distributions or signals & {"teacher_logprobs", "teacher_entropy"}:
        entropy = "teacher_entropy" in signals
        scores, known = score_by_teachers(teachers, rollouts, watch, entropy=entropy, distributions=distributions)
        read |= scores.named("teacher")
    if base is not None and "base_logprobs" in signals:
        with watch("base"):
            read |= base.score(rollouts, entropy=False).named("base")
    if known is not None and signals & JOINT:
        comparison = DistributionComparison(known, joint_signals(signals & JOINT, top_k))
    if student is not None:
        entropy = "student_entropy" in signals
        with watch("student"):
            own = score_rollouts(student, rollouts, entropy=entropy, token_budget=token_budget, comparison=comparison)
        read |= own.named("student")
    if rollouts.rewards is not None:
        read["rewards"] = rollouts.rewards
    return ScoredBatch.of(rollouts, read), known

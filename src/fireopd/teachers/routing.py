"""Routing of trajectories to their teachers."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.errors import UserError, named_in_traceback
from fireopd.models.distributions import TeacherDistributions, TeacherHead
from fireopd.teachers.base import Teacher
from fireopd.teachers.contract import checked_distributions, checked_scores
from fireopd.types import RolloutBatch, TokenScores

__all__ = ["deduplicate", "prefetch_by_teachers", "score_by_base", "score_by_teachers"]


def deduplicate(teachers: Mapping[str, Teacher]) -> dict[str, Teacher]:
    """Return the teachers with one object for equal settings, so that each model is loaded once; parts of them, too."""
    unique: list[Teacher] = []

    def shared(teacher: Teacher) -> Teacher:
        """Return the first teacher with equal settings."""
        if teacher.parts:
            teacher.replace_parts({name: shared(part) for name, part in teacher.parts.items()})
        if teacher not in unique:
            unique.append(teacher)
        return unique[unique.index(teacher)]

    return {name: shared(teacher) for name, teacher in teachers.items()}


def score_by_teachers(
    teachers: Mapping[str, Teacher],
    rollouts: RolloutBatch,
    watch: Callable[[str], AbstractContextManager[None]],
    *,
    entropy: bool,
    distributions: bool,
) -> tuple[TokenScores, TeacherDistributions | None]:
    """Score each row with its own teacher. Teachers in other processes score at the same time.

    Args:
        teachers: teachers by name. Teachers without rows are skipped, unless several processes share the models.
        rollouts: B trajectories.
        watch: timer; called with `teacher/<name>`, returns a context manager that measures the scoring of a teacher, or
            the waiting for one in other processes.
        entropy: whether to compute the entropies.
        distributions: whether to return the distributions.

    Returns:
        Scores of shape [B, L], and the distributions at the response tokens of the B rows if requested.

    Raises:
        ContractError: on all ranks, if the result of a teacher is invalid on one of them.
    """
    logprobs = torch.zeros_like(rollouts.sampling_logprobs)
    entropies = torch.zeros_like(logprobs) if entropy else None
    by_row: dict[int, tuple[Tensor, TeacherHead]] = {}
    problem: UserError | None = None
    settings = {"entropy": entropy, "distributions": distributions}
    if not distributions:
        prefetch_by_teachers(teachers, rollouts)
    for name, teacher in teachers.items():
        rows, index, part = _rows_of(name, rollouts)
        if not rows and collectives.world_size() == 1:
            continue
        with watch(f"teacher/{name}"):
            try:
                scores, of_rows = _scores_of(f"model.teachers.{name}", teacher, part, **settings)
            except UserError as error:
                problem = problem or error
                continue
            if of_rows is not None:
                by_row |= dict(zip(rows, zip(of_rows.hidden_states, of_rows.heads, strict=True), strict=True))
            width = part.tokens.shape[1]
            logprobs[index, :width] = scores.logprobs
            if entropies is not None and scores.entropy is not None:
                entropies[index, :width] = scores.entropy
    collectives.raise_on_all_ranks(problem)
    scores = TokenScores(logprobs, entropies)
    if not distributions:
        return scores, None
    ordered = [by_row[row] for row in sorted(by_row)]
    return scores, TeacherDistributions(tuple(states for states, _ in ordered), tuple(head for _, head in ordered))


def _rows_of(name: str, rollouts: RolloutBatch) -> tuple[list[int], Tensor, RolloutBatch]:
    """Return the rows of a teacher as a list and as int64 [rows], and their trajectories."""
    rows = [row for row, row_teacher in enumerate(rollouts.teachers) if row_teacher == name]
    index = torch.tensor(rows, dtype=torch.int64, device=rollouts.tokens.device)
    return rows, index, rollouts.select(index)


def prefetch_by_teachers(teachers: Mapping[str, Teacher], rollouts: RolloutBatch) -> None:
    """Let the teacher of each row begin to score it, if it scores in another process; see `Teacher.prefetch`."""
    for name in sorted(teachers.keys() & set(rollouts.teachers)):
        rows, _, own = _rows_of(name, rollouts)
        with named_in_traceback(f"model.teachers.{name}", teachers[name], f"begins to score {len(rows)} trajectories"):
            teachers[name].prefetch(own)


def score_by_base(base: Teacher, rollouts: RolloutBatch) -> TokenScores:
    """Score all rows with the base model.

    Raises:
        ContractError: on all ranks, if the result is invalid on one of them.
    """
    scores, problem = None, None
    try:
        scores, _ = _scores_of("model.base", base, rollouts, entropy=False, distributions=False)
    except UserError as error:
        problem = error
    collectives.raise_on_all_ranks(problem)
    assert scores is not None
    return scores


def _scores_of(
    key: str, teacher: Teacher, rollouts: RolloutBatch, *, entropy: bool, distributions: bool
) -> tuple[TokenScores, TeacherDistributions | None]:
    """Return the checked scores of one teacher, and its distributions if requested."""
    with named_in_traceback(key, teacher, f"scores {len(rollouts.prompts)} trajectories"):
        method = teacher.score_with_distributions if distributions else teacher.score
        answer = method(rollouts, entropy=entropy)
    if not distributions:
        return checked_scores(key, teacher, answer, rollouts, entropy=entropy), None
    return checked_distributions(key, teacher, answer, rollouts, entropy=entropy)

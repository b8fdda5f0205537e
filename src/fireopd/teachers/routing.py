"""Routing of trajectories to their teachers."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.models.distributions import OutputHead, TeacherDistributions
from fireopd.teachers.base import Teacher
from fireopd.types import RolloutBatch, TokenScores

__all__ = ["deduplicate", "score_by_teachers"]


def deduplicate(teachers: Mapping[str, Teacher]) -> dict[str, Teacher]:
    """Return the teachers with one object for equal settings, so that each model is loaded once."""
    unique: list[Teacher] = []
    deduplicated: dict[str, Teacher] = {}
    for name, teacher in teachers.items():
        if teacher not in unique:
            unique.append(teacher)
        deduplicated[name] = unique[unique.index(teacher)]
    return deduplicated


def score_by_teachers(
    teachers: Mapping[str, Teacher],
    rollouts: RolloutBatch,
    watch: Callable[[str], AbstractContextManager[None]],
    *,
    entropy: bool,
    distributions: bool,
) -> tuple[TokenScores, TeacherDistributions | None]:
    """Score each row with its own teacher.

    Args:
        teachers: teachers by name. Teachers without rows are skipped, unless several processes share the models.
        rollouts: B trajectories.
        watch: timer; called with `teacher/<name>`, returns a context manager that measures the scoring of a teacher.
        entropy: whether to compute the entropies.
        distributions: whether to return the distributions.

    Returns:
        Scores of shape [B, L], and the distributions at the response tokens of the B rows if requested.
    """
    logprobs = torch.zeros_like(rollouts.sampling_logprobs)
    entropies = torch.zeros_like(logprobs) if entropy else None
    by_row: dict[int, tuple[Tensor, OutputHead]] = {}
    for name, teacher in teachers.items():
        rows = [row for row, row_teacher in enumerate(rollouts.teachers) if row_teacher == name]
        if not rows and collectives.world_size() == 1:
            continue
        with watch(f"teacher/{name}"):
            index = torch.tensor(rows, dtype=torch.int64, device=logprobs.device)
            part = rollouts.select(index)
            if distributions:
                scores, teacher_distributions = teacher.score_with_distributions(part, entropy=entropy)
                pairs = zip(teacher_distributions.hidden_states, teacher_distributions.heads, strict=True)
                by_row |= dict(zip(rows, pairs, strict=True))
            else:
                scores = teacher.score(part, entropy=entropy)
            width = part.tokens.shape[1]
            logprobs[index, :width] = scores.logprobs
            if entropies is not None and scores.entropy is not None:
                entropies[index, :width] = scores.entropy
    scores = TokenScores(logprobs, entropies)
    if not distributions:
        return scores, None
    ordered = [by_row[row] for row in sorted(by_row)]
    return scores, TeacherDistributions(tuple(states for states, _ in ordered), tuple(head for _, head in ordered))

"""Routing of trajectories to their teachers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.models.distributions import Head, TeacherDistributions
from fireopd.teachers.base import Teacher
from fireopd.training.stopwatch import Stopwatch
from fireopd.types import RolloutBatch, TokenScores


def deduplicate(teachers: Mapping[str, Teacher]) -> dict[str, Teacher]:
    """Return the teachers with those of equal settings replaced by one object, so that it is loaded once."""
    unique: list[Teacher] = []
    shared: dict[str, Teacher] = {}
    for name, teacher in teachers.items():
        if teacher not in unique:
            unique.append(teacher)
        shared[name] = unique[unique.index(teacher)]
    return shared


def score_by_teachers(
    teachers: Mapping[str, Teacher], rollouts: RolloutBatch, watch: Stopwatch, *, entropy: bool, distributions: bool
) -> tuple[TokenScores, TeacherDistributions | None]:
    """Have each teacher score its own rows, and put the answers back in place.

    Args:
        teachers: by name; one that no row names does nothing.
        rollouts: B trajectories.
        watch: takes the seconds of each teacher, as `teacher/<name>`.
        entropy: whether the entropies are wanted.
        distributions: whether the distributions are wanted.

    Returns:
        Scores of [B, L], and the distributions at the response tokens of the B rows if they are wanted.
    """
    logprobs = torch.zeros_like(rollouts.sampling_logprobs)
    entropies = torch.zeros_like(logprobs) if entropy else None
    known: dict[int, tuple[Tensor, Head]] = {}
    for name, teacher in teachers.items():
        rows = [row for row, own in enumerate(rollouts.teachers) if own == name]
        if not rows and collectives.world_size() == 1:
            continue
        with watch(f"teacher/{name}"):
            index = torch.tensor(rows, dtype=torch.int64, device=logprobs.device)
            part = rollouts.select(index)
            if distributions:
                scores, own_distributions = teacher.score_with_distributions(part, entropy=entropy)
                pairs = zip(own_distributions.hidden_states, own_distributions.heads, strict=True)
                known |= dict(zip(rows, pairs, strict=True))
            else:
                scores = teacher.score(part, entropy=entropy)
            width = part.tokens.shape[1]
            logprobs[index, :width] = scores.logprobs
            if entropies is not None and scores.entropy is not None:
                entropies[index, :width] = scores.entropy
    in_place = [known[row] for row in sorted(known)]
    found = (
        TeacherDistributions(tuple(s for s, _ in in_place), tuple(h for _, h in in_place)) if distributions else None
    )
    return TokenScores(logprobs, entropies), found

"""Statistics of methods on the same recorded rollouts: kept trajectories, token weights, pairwise agreement.

Each file is one global batch. A method is applied to one batch at a time, as in training; the statistics pool all
batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from fireopd.analysis.rank_correlation import rank_correlation
from fireopd.method import Method
from fireopd.training.recordings import check_method, check_responses, read_scored
from fireopd.training.step_metrics import effective_share
from fireopd.types import ScoredBatch
from fireopd.types.targets import Targets

__all__ = [
    "Agreement",
    "GroupShare",
    "MethodStatistics",
    "Recording",
    "agreements",
    "compute_statistics",
    "length_buckets",
    "read_recordings",
]

LENGTH_BUCKETS = 4
"""Number of groups of about equal size that trajectories are split into by length."""


@dataclass(frozen=True)
class Recording:
    """File of scored rollouts with its content."""

    path: Path
    """Path of the file."""
    batch: ScoredBatch
    """Scored batch in the file."""


@dataclass(frozen=True)
class GroupShare:
    """Shares of a group of trajectories."""

    kept: float
    """Fraction of the group's trajectories that are kept."""
    tokens: float
    """Fraction of all response tokens."""
    weight: float
    """Fraction of the total token weight."""


@dataclass(frozen=True)
class MethodStatistics:
    """Statistics of one method on all recordings."""

    keep_ratio: float
    """Fraction of trajectories that are kept."""
    kept_tokens: int
    """Response tokens of the kept trajectories."""
    effective_share: float
    """Effective sample size of the weights divided by the number of kept tokens; 1 for equal weights."""
    weights: Tensor
    """float32 [T]. Weights of all kept tokens."""
    by_file: list[dict[str, float]]
    """`policy_version`, `keep_ratio` and `effective_share` of each recording."""
    by_teacher: dict[str, GroupShare]
    """Shares by name of the teacher."""
    by_length: dict[str, GroupShare]
    """Shares by range of response lengths, tokens."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two methods."""

    first: str
    """Name of the first method."""
    second: str
    """Name of the second method."""
    keep_overlap: float
    """Jaccard index of the kept trajectories; 1 if neither method keeps any."""
    rank_correlation: float | None
    """Spearman correlation of the weights of tokens that both keep; None if all weights of one are equal."""


def read_recordings(paths: Sequence[Path], methods: Mapping[str, Method]) -> list[Recording]:
    """Read recordings, ordered by policy version, and check that every method can be applied to each.

    Args:
        paths: files of scored rollouts.
        methods: methods by name.

    Raises:
        UserError: if a file cannot be read, has no response token, or lacks a signal that a method requires.
    """
    recordings = [Recording(path, read_scored(path)) for path in paths]
    for recording in recordings:
        check_responses(recording.path, recording.batch)
        for name, method in methods.items():
            check_method(recording.path, recording.batch, method, name)
    return sorted(recordings, key=lambda recording: recording.batch.policy_version)


def compute_statistics(recordings: Sequence[Recording], targets: Sequence[Targets]) -> MethodStatistics:
    """Return the statistics of a method on recordings.

    Args:
        recordings: one or more recordings.
        targets: targets of the method for each recording.
    """
    batches = [recording.batch for recording in recordings]
    weights = torch.cat([own.weight[own.mask] for own in targets])
    keep = torch.cat([own.keep for own in targets])
    tokens = torch.cat([batch.lengths for batch in batches])
    weight = torch.cat([own.weight.double().sum(-1) for own in targets])
    teachers = [name for batch in batches for name in batch.teachers]
    groups = {name: torch.tensor([teacher == name for teacher in teachers]) for name in sorted(set(teachers))}
    return MethodStatistics(
        keep_ratio=keep.double().mean().item(),
        kept_tokens=len(weights),
        effective_share=effective_share(weights, torch.ones_like(weights, dtype=torch.bool)).item(),
        weights=weights,
        by_file=[_of_file(batch, own) for batch, own in zip(batches, targets, strict=True)],
        by_teacher={name: _share(rows, keep, tokens, weight) for name, rows in groups.items()},
        by_length={name: _share(rows, keep, tokens, weight) for name, rows in length_buckets(tokens).items()},
    )


def agreements(targets: Mapping[str, Sequence[Targets]]) -> list[Agreement]:
    """Return the agreement of each pair of methods, given the targets of each method for the same recordings."""
    return [Agreement(a, b, *_agreement(targets[a], targets[b])) for a, b in combinations(targets, 2)]


def length_buckets(lengths: Tensor) -> dict[str, Tensor]:
    """Split int64 [N] lengths at their quartiles; return a bool [N] row mask by name of the range."""
    edges = (
        torch.quantile(lengths.double(), torch.linspace(0, 1, LENGTH_BUCKETS + 1, dtype=torch.float64)).floor().long()
    )
    buckets = {}
    low = int(edges[0])
    for high in edges[1:].unique().tolist():
        rows = (lengths >= low) & (lengths <= high)
        if rows.any():
            found = lengths[rows]
            buckets[f"{int(found.min())} to {int(found.max())}"] = rows
        low = high + 1
    return buckets


def _of_file(batch: ScoredBatch, targets: Targets) -> dict[str, float]:
    return {
        "policy_version": batch.policy_version,
        "keep_ratio": targets.keep.double().mean().item(),
        "effective_share": effective_share(targets.weight, targets.mask).item(),
    }


def _share(rows: Tensor, keep: Tensor, tokens: Tensor, weight: Tensor) -> GroupShare:
    kept, total = keep[rows].double().mean().item(), weight.sum().item()
    return GroupShare(
        kept, (tokens[rows].sum() / tokens.sum()).item(), weight[rows].sum().item() / total if total else 0.0
    )


def _agreement(first: Sequence[Targets], second: Sequence[Targets]) -> tuple[float, float | None]:
    pairs = list(zip(first, second, strict=True))
    both = sum(int((one.keep & other.keep).sum()) for one, other in pairs)
    either = sum(int((one.keep | other.keep).sum()) for one, other in pairs)
    ours = torch.cat([one.weight[one.mask & other.mask] for one, other in pairs])
    theirs = torch.cat([other.weight[one.mask & other.mask] for one, other in pairs])
    return both / either if either else 1.0, rank_correlation(ours, theirs)

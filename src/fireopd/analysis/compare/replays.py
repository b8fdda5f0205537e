"""What methods make of the same recorded rollouts: whom they keep, how they weigh, and where they agree.

Each file is one global batch; a method sees one at a time, as in training, and the figures are of all of them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from fireopd.analysis.rank_correlation import rank_correlation
from fireopd.analysis.recordings import how_to_record, read_scored
from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.training.step_metrics import effective_share
from fireopd.types import ScoredBatch
from fireopd.types.targets import Targets

BUCKETS = 4
"""Into so many groups of like size are trajectories put by their length."""


@dataclass(frozen=True)
class Recording:
    """A file of scored rollouts."""

    path: Path
    """The file."""
    batch: ScoredBatch
    """What it holds."""


@dataclass(frozen=True)
class Share:
    """What a group of trajectories gets."""

    kept: float
    """Share of its trajectories that are kept."""
    tokens: float
    """Its share of all response tokens."""
    weight: float
    """Its share of the weight that the method gives out."""


@dataclass(frozen=True)
class Portrait:
    """What a method makes of the recordings."""

    keep_ratio: float
    """Share of the trajectories that it keeps."""
    kept_tokens: int
    """Response tokens of those."""
    effective_share: float
    """Effective sample size of their weights as a share of them: 1 for equal weights."""
    weights: Tensor
    """float32 [T]. The weights of all kept tokens."""
    by_file: list[dict[str, float]]
    """`policy_version`, `keep_ratio` and `effective_share` of each recording."""
    by_teacher: dict[str, Share]
    """By name of the teacher."""
    by_length: dict[str, Share]
    """By range of response lengths, tokens."""


@dataclass(frozen=True)
class Agreement:
    """How alike two methods are."""

    first: str
    """Name of the one."""
    second: str
    """Name of the other."""
    keep_overlap: float
    """Jaccard index of what they keep: kept by both, over kept by either; 1 where neither keeps anything."""
    rank_correlation: float | None
    """Spearman's, of the weights of tokens that both keep; none where all weights of one are equal."""


def read_recordings(paths: Sequence[Path], methods: Mapping[str, Method]) -> list[Recording]:
    """Read the files, oldest weights first, and check that every method can be asked about each.

    Raises:
        UserError: if a file cannot be read, holds no trajectory, or lacks what a method needs.
    """
    recordings = [Recording(path, read_scored(path)) for path in paths]
    for recording in recordings:
        batch, file = recording.batch, recording.path
        if not batch.response_mask.any():
            raise UserError("FILE", str(file), "it holds no response token", "record rollouts of a student")
        for name, method in methods.items():
            for signal in sorted(method.requires - batch.signals.keys()):
                problem = f"its strategies require {signal!r}, which {file} does not hold"
                raise UserError("--methods", name, problem, f"{how_to_record(signal)}, or leave the method out")
            if batch.sampling.truncated and method.importance_cap is not None:
                problem = (
                    f"importance_cap is {method.importance_cap}, but the responses of {file} were drawn from a part"
                )
                problem += f" of the vocabulary ({batch.sampling})"
                raise UserError("--methods", name, problem, "set model.importance_cap to null")
    return sorted(recordings, key=lambda recording: recording.batch.policy_version)


def portray(recordings: Sequence[Recording], answers: Sequence[Targets]) -> Portrait:
    """Return what a method makes of the recordings.

    Args:
        recordings: one or more.
        answers: the method's targets for each.
    """
    batches = [recording.batch for recording in recordings]
    weights = torch.cat([targets.weight[targets.mask] for targets in answers])
    keep = torch.cat([targets.keep for targets in answers])
    tokens = torch.cat([batch.lengths for batch in batches])
    weight = torch.cat([targets.weight.double().sum(-1) for targets in answers])
    teachers = [name for batch in batches for name in batch.teachers]
    groups = {name: torch.tensor([own == name for own in teachers]) for name in sorted(set(teachers))}
    return Portrait(
        keep_ratio=keep.double().mean().item(),
        kept_tokens=len(weights),
        effective_share=effective_share(weights, torch.ones_like(weights, dtype=torch.bool)).item(),
        weights=weights,
        by_file=[_of_file(batch, targets) for batch, targets in zip(batches, answers, strict=True)],
        by_teacher={name: _share(rows, keep, tokens, weight) for name, rows in groups.items()},
        by_length={name: _share(rows, keep, tokens, weight) for name, rows in length_buckets(tokens).items()},
    )


def agreements(answers: Mapping[str, Sequence[Targets]]) -> list[Agreement]:
    """Return how alike each two methods are, given the targets that each has for the same recordings."""
    return [Agreement(a, b, *_agreement(answers[a], answers[b])) for a, b in combinations(answers, 2)]


def length_buckets(lengths: Tensor) -> dict[str, Tensor]:
    """Return bool [N] of the rows in each range of int64 [N] lengths; the ranges end at the quartiles."""
    edges = torch.quantile(lengths.double(), torch.linspace(0, 1, BUCKETS + 1, dtype=torch.float64)).floor().long()
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


def _share(rows: Tensor, keep: Tensor, tokens: Tensor, weight: Tensor) -> Share:
    kept, total = keep[rows].double().mean().item(), weight.sum().item()
    return Share(kept, (tokens[rows].sum() / tokens.sum()).item(), weight[rows].sum().item() / total if total else 0.0)


def _agreement(first: Sequence[Targets], second: Sequence[Targets]) -> tuple[float, float | None]:
    pairs = list(zip(first, second, strict=True))
    both = sum(int((one.keep & other.keep).sum()) for one, other in pairs)
    either = sum(int((one.keep | other.keep).sum()) for one, other in pairs)
    ours = torch.cat([one.weight[one.mask & other.mask] for one, other in pairs])
    theirs = torch.cat([other.weight[one.mask & other.mask] for one, other in pairs])
    return both / either if either else 1.0, rank_correlation(ours, theirs)

"""What a handful of runs can say: mean, standard error, and differences in pairs with a bootstrap interval.

Runs of one seed share prompts, their order and the noise of sampling. Their differences are less noisy than the runs,
and are what is resampled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CONFIDENCE = 0.95
"""Of every interval."""
RESAMPLES = 20000
"""Bootstrap samples of an interval."""
ENOUGH_PAIRS = 5
"""Pairs from which an interval can reach its confidence; one of n pairs holds the truth in 1 - 2^(1 - n) at best."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much higher a quantity is than its control, over seeds that both have."""

    values: Mapping[int, float]
    """Differences by seed, in the unit of the quantity."""
    mean: float
    """Their mean."""
    low: float | None
    """Lower end of the interval; none with fewer than two pairs."""
    high: float | None
    """Upper end of the interval; none with fewer than two pairs."""

    @property
    def pairs(self) -> int:
        """Seeds that both have."""
        return len(self.values)

    @property
    def verdict(self) -> str:
        """What may be said of it, in words: a direction only where the interval does not contain 0."""
        if self.low is None or self.high is None:
            return f"no interval: {self.pairs} common seed{'' if self.pairs == 1 else 's'}"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        direction = "higher" if self.low > 0 else "lower"
        if self.pairs < ENOUGH_PAIRS:
            return f"{direction} in all {self.pairs}"
        return direction


def mean(values: Sequence[float]) -> float:
    """Return the mean of one or more values."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, from the variance over n - 1; none for a single value."""
    if len(values) < 2:
        return None
    centre = mean(values)
    variance = math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def paired_bootstrap(
    treatment: Mapping[int, float], control: Mapping[int, float], *, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference | None:
    """Compare two sets of runs by the seeds that both have; none if they share no seed.

    The interval is that between two percentiles of the bootstrapped mean difference, moved outwards since the plain
    ones come out too narrow for few pairs (expanded percentiles: Hesterberg, The American Statistician 69, 2015, p.
    371). On simulated normal differences it holds the true one in 0.92 of cases with 5 pairs, and in 0.94 with 8; with
    n < 5 it reaches from the lowest to the highest difference, and can hold it in no more than 1 - 2^(1 - n).

    Args:
        treatment: values by seed.
        control: values by seed.
        resamples: bootstrap samples.
        seed: of the resampling.
    """
    differences = {key: treatment[key] - control[key] for key in sorted(treatment.keys() & control.keys())}
    if not differences:
        return None
    values, pairs = list(differences.values()), len(differences)
    if pairs < 2:
        return PairedDifference(differences, mean(values), None, None)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(pairs, (resamples, pairs), generator=generator)
    means = torch.tensor(values, dtype=torch.float64)[chosen].mean(-1)
    tail = expanded_tail(pairs)
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return PairedDifference(differences, mean(values), low, high)


def expanded_tail(n: int) -> float:
    """Return the share of bootstrap means to cut off on each side: Phi(-sqrt(n / (n - 1)) t), t of n - 1 degrees."""
    stretch = math.sqrt(n / (n - 1)) * student_quantile(1 - (1 - CONFIDENCE) / 2, n - 1)
    return math.erfc(stretch / math.sqrt(2)) / 2


def student_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t; at t = sqrt(degrees) tan(angle) the angle's density is cos^(degrees - 1)."""
    angles = torch.linspace(-math.pi / 2, math.pi / 2, 200001, dtype=torch.float64)
    masses = torch.cumulative_trapezoid(angles.cos().clamp(min=0) ** (degrees - 1), angles)
    place = int(torch.searchsorted(masses, probability * masses[-1]))
    return math.sqrt(degrees) * math.tan(angles[place + 1].item())


def average_ranks(values: Tensor) -> Tensor:
    """Return float64 [T]: the ranks of [T] values from 1, those of equal values being their mean."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2).double()[place]


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Return Spearman's correlation of two [T] tensors; none where one of them is constant or they are empty."""
    ranks = torch.stack([average_ranks(first), average_ranks(second)])
    centred = ranks - ranks.mean(-1, keepdim=True) if ranks.shape[1] else ranks
    scale = centred.norm(dim=-1).prod()
    return (centred[0] @ centred[1] / scale).item() if scale > 0 else None

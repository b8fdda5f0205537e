"""Paired differences with simultaneous intervals: all of them hold together with the confidence level.

The intervals are those of Student's t distribution with the error probability divided by the number of comparisons
(Bonferroni; Miller, Simultaneous Statistical Inference, 1981, Sec. 2.3). Differences may be correlated, for example by
a common control.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from fireopd.analysis.bootstrap import CONFIDENCE, PairedDifference, standard_error, student_quantile

__all__ = ["half_width", "simultaneous_difference"]


def half_width(values: Sequence[float], comparisons: int) -> float | None:
    """Return half the length of the interval of a mean; None for a single value.

    Args:
        values: independent values, normally distributed.
        comparisons: number of intervals that hold together, at least 1.
    """
    error = standard_error(values)
    if error is None:
        return None
    return student_quantile(1 - (1 - CONFIDENCE) / (2 * comparisons), len(values) - 1) * error


def simultaneous_difference(
    treatment: Mapping[int, float], control: Mapping[int, float], comparisons: int
) -> PairedDifference | None:
    """Return a paired difference over common seeds; None without a common seed.

    Args:
        treatment: values by seed.
        control: values by seed.
        comparisons: number of differences whose intervals hold together.
    """
    differences = {seed: treatment[seed] - control[seed] for seed in sorted(treatment.keys() & control.keys())}
    if not differences:
        return None
    values = list(differences.values())
    centre, half = fmean(values), half_width(values, comparisons)
    low, high = (None, None) if half is None or not math.isfinite(half) else (centre - half, centre + half)
    return PairedDifference(differences, centre, low, high)

"""Coverage and size of simultaneous intervals."""

import math

import pytest
import torch

from fireopd.analysis.compare.simultaneous_intervals import half_width, simultaneous_difference


@pytest.mark.parametrize(("seeds", "comparisons", "quantile"), [(5, 1, 2.7764), (3, 1, 4.3027), (5, 25, 7.1732)])
def test_quantiles_of_student(seeds, comparisons, quantile):
    """Tables of Student's t: probability 0.975 with 4 and 2 degrees of freedom, 0.999 with 4."""
    values = [float(value) for value in range(seeds)]
    error = math.sqrt(sum((value - (seeds - 1) / 2) ** 2 for value in values) / (seeds - 1) / seeds)
    assert half_width(values, comparisons) == pytest.approx(quantile * error, rel=2e-3)


@pytest.mark.parametrize("seeds", [3, 5])
def test_all_intervals_of_a_family_hold_together(seeds):
    """20 methods against a common control, spreads from 0.2 to 2: Bonferroni covers 95 % of the families or more."""
    generator = torch.Generator().manual_seed(0)
    families, methods = 4000, 20
    spreads = torch.linspace(0.2, 2, methods, dtype=torch.float64)[:, None]
    noise = torch.randn(families, methods, seeds, generator=generator, dtype=torch.float64) * spreads
    differences = noise - torch.randn(families, 1, seeds, generator=generator, dtype=torch.float64)
    unit = half_width([-1.0, 1.0] + [0.0] * (seeds - 2), methods)
    scale = unit / math.sqrt(2 / (seeds - 1) / seeds)
    halves = scale * differences.std(-1) / math.sqrt(seeds)
    coverage = (differences.mean(-1).abs() <= halves).all(-1).double().mean().item()
    error = math.sqrt(0.95 * 0.05 / families)
    assert 0.95 - 3 * error <= coverage <= 0.99
    alone = half_width([-1.0, 1.0] + [0.0] * (seeds - 2), 1) / unit
    assert (differences.mean(-1).abs() <= alone * halves).all(-1).double().mean().item() < 0.8


def test_differences_over_common_seeds():
    found = simultaneous_difference({1: 0.5, 2: 0.6, 3: 0.9}, {1: 0.1, 2: 0.3, 4: 0.0}, 1)
    assert found.values == pytest.approx({1: 0.4, 2: 0.3})
    assert (found.mean, found.high - found.mean) == pytest.approx((0.35, 12.706 * 0.05), rel=1e-3)
    single = simultaneous_difference({1: 0.5}, {1: 0.1}, 9)
    assert (single.low, single.high, single.verdict) == (None, None, "no interval: 1 common seed")
    assert simultaneous_difference({1: 0.5}, {2: 0.1}, 9) is None

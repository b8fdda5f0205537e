"""Intervals, standard errors and ranks against naive references and simulated data."""

import itertools
import math
import random
from statistics import fmean

import pytest
import torch

from fireopd.analysis.bootstrap import (
    PairedDifference,
    average_of,
    bootstrap,
    paired_bootstrap,
    resampled_means,
    standard_error,
    student_quantile,
)
from fireopd.analysis.rank_correlation import average_ranks, rank_correlation


def of(values):
    return dict(enumerate(values))


def against_zero(values, **more):
    return paired_bootstrap(of(values), of([0.0] * len(values)), **more)


def test_standard_error_by_hand():
    assert standard_error([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))
    assert standard_error([4.0]) is None
    assert standard_error([4.0, 4.0]) == 0


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (29, 2.0452)],  # any table of Student's t
)
def test_student_quantiles_are_those_of_the_tables(degrees, quantile):
    assert student_quantile(0.975, degrees) == pytest.approx(quantile, abs=2e-3)


def test_only_common_seeds_are_compared_each_with_itself():
    found = paired_bootstrap({3: 5.0, 1: 2.0, 9: 7.0}, {1: 1.5, 3: 4.0, 4: 100.0})
    assert found.values == {1: 0.5, 3: 1.0}
    assert (found.pairs, found.mean) == (2, 0.75)
    assert paired_bootstrap({1: 1.0}, {2: 1.0}) is None


@pytest.mark.parametrize("values", [(0.2, -0.1), (1.0, 2.0, 4.0), (1.0, -3.0, 2.0, 8.0)])
def test_fewer_than_five_pairs_give_the_range_of_the_differences(values):
    found = against_zero(values)
    assert (found.low, found.high) == pytest.approx((min(values), max(values)))


def test_the_interval_lies_at_percentiles_of_all_resamples():
    values = [0.1, 0.5, -0.2, 0.9, 0.3, 0.4]
    means = sorted(sum(chosen) / 6 for chosen in itertools.product(values, repeat=6))
    stretch = math.sqrt(6 / 5) * 2.5706  # 97.5 % of Student's t with 5 degrees, from a table
    tail = 0.5 * math.erfc(stretch / math.sqrt(2))
    found = against_zero(values, resamples=200_000)
    assert found.low == pytest.approx(means[round(tail * len(means))], abs=0.02)
    assert found.high == pytest.approx(means[round((1 - tail) * len(means))], abs=0.02)


@pytest.mark.parametrize(("pairs", "least"), [(5, 0.88), (8, 0.91)])
def test_coverage_on_simulated_differences(pairs, least):
    generator = random.Random(pairs)
    hits = 0
    for trial in range(400):
        found = against_zero([generator.gauss(0, 1) for _ in range(pairs)], resamples=2000, seed=trial)
        hits += found.low <= 0 <= found.high
    assert least < hits / 400 < 0.98


def test_resampling_is_seeded_and_does_not_touch_the_global_generator():
    values = [0.1, 0.5, -0.2, 0.9, 0.3]
    state = torch.get_rng_state()
    assert against_zero(values) == against_zero(values)
    assert against_zero(values, seed=1) != against_zero(values, seed=2, resamples=500)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.1], "no interval: 1 common seed"),
        ([0.1, 0.2], "higher in all 2"),
        ([0.1, -0.1], "no difference shown"),
        ([-0.1, -0.2, -0.3], "lower in all 3"),
        ([0.1, 0.1, 0.1, 0.2, 0.2, 0.2], "higher"),
        ([-0.1, -0.1, -0.1, -0.2, -0.2, -0.2], "lower"),
        ([0.1, -0.1, 0.1, -0.1, 0.2, 0.2], "no difference shown"),
        ([0.0, 0.0, 0.0], "no difference shown"),
        ([0.0, 0.1, 0.2], "no difference shown"),
    ],
)
def test_a_direction_is_named_only_where_the_interval_does_not_contain_0(values, verdict):
    found = against_zero(values)
    assert found.verdict == verdict
    assert "better" not in verdict
    assert (found.low is None) == (len(values) < 2)


def test_an_interval_that_ends_at_0_shows_no_difference():
    assert PairedDifference(dict.fromkeys(range(6), 1.0), 1.0, 0.0, 2.0).verdict == "no difference shown"


def test_resampled_means_are_those_of_rows_drawn_with_replacement(monkeypatch):
    columns = torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chosen = torch.randint(7, (50, 7), generator=torch.Generator().manual_seed(3))
    expected = columns[chosen].mean(1)
    torch.testing.assert_close(resampled_means(columns, resamples=50, seed=3), expected)
    monkeypatch.setattr("fireopd.analysis.bootstrap.DRAWS_AT_ONCE", 20)
    torch.testing.assert_close(resampled_means(columns, resamples=50, seed=3), expected)


def test_a_ratio_is_resampled_as_one():
    """Accuracy of finished responses: a problem without one has weight 0, but is still resampled."""
    tops, bottoms = [2.0, 0.0, 0.0, 1.0], [4.0, 0.0, 1.0, 1.0]
    found = bootstrap(tops, bottoms, resamples=4000)
    assert found.value == 0.5
    residuals = [top - 0.5 * bottom for top, bottom in zip(tops, bottoms, strict=True)]
    assert found.error == pytest.approx(standard_error(residuals) / 1.5)
    ratios = [
        sum(tops[i] for i in chosen) / sum(bottoms[i] for i in chosen)
        for chosen in itertools.product(range(4), repeat=4)
        if any(bottoms[i] for i in chosen)
    ]
    defined = found.draws[~found.draws.isnan()]
    assert set(defined.tolist()) <= set(ratios)
    assert defined.mean().item() == pytest.approx(fmean(ratios), abs=0.01)
    assert bootstrap([0.0, 0.0], [0.0, 0.0]) is None


@pytest.mark.parametrize(("problems", "least"), [(10, 0.88), (30, 0.91)])
def test_coverage_of_intervals_over_simulated_problems(problems, least):
    """Problems of uniform difficulty, four responses each: the mean accuracy is 1/2."""
    generator = random.Random(problems)
    hits = 0
    for trial in range(300):
        chances = [generator.random() for _ in range(problems)]
        values = [fmean([float(generator.random() < chance) for _ in range(4)]) for chance in chances]
        low, high = bootstrap(values, [1.0] * problems, resamples=1000, seed=trial).interval
        hits += low <= 0.5 <= high
    assert least < hits / 300 < 0.985


def test_coverage_of_an_average_over_two_benchmarks():
    generator = random.Random(0)
    hits = 0
    for trial in range(300):
        parts = [
            bootstrap([generator.gauss(centre, 1) for _ in range(n)], [1.0] * n, resamples=1000, seed=2 * trial + place)
            for place, (n, centre) in enumerate(((12, 0.0), (30, 1.0)))
        ]
        low, high = average_of(parts).interval
        hits += low <= 0.5 <= high
    assert 0.91 < hits / 300 < 0.985


def naive_ranks(values):
    return [sum(b < a for b in values) + (1 + sum(b == a for b in values)) / 2 for a in values]


def test_ranks_of_equal_values_are_their_mean():
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0, 1.0])
    assert average_ranks(values).tolist() == naive_ranks(values.tolist()) == [5, 1.5, 5, 3, 5, 1.5]


def test_rank_correlation_is_the_correlation_of_naive_ranks():
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 9, (50,), generator=generator).float()
    second = first + torch.randint(0, 9, (50,), generator=generator)
    ranks = [torch.tensor(naive_ranks(values.tolist())) for values in (first, second)]
    assert rank_correlation(first, second) == pytest.approx(torch.corrcoef(torch.stack(ranks))[0, 1].item())
    assert rank_correlation(first, first**3) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)


def test_rank_correlation_is_undefined_without_variation():
    assert rank_correlation(torch.ones(4), torch.rand(4)) is None
    assert rank_correlation(torch.rand(1), torch.rand(1)) is None
    assert rank_correlation(torch.zeros(0), torch.zeros(0)) is None


def test_rank_correlation_of_many_equal_values():
    """Weights of two levels: the correlation of the levels, whatever their number of tokens."""
    first = torch.arange(100_000) % 4 > 0
    second = torch.arange(100_000) % 2 > 0
    expected = torch.corrcoef(torch.stack([first, second]).double())[0, 1].item()
    assert rank_correlation(first.float(), second.float()) == pytest.approx(expected, abs=1e-9)

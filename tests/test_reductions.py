"""Masked reductions against naive references, with garbage off the mask."""

import math

import pytest
import torch
from helpers.fakes import scored_batch

from fireopd import reductions

BATCH = scored_batch(9, 14, seed=1)
MASK, VALUES = BATCH.response_mask, torch.where(BATCH.response_mask, BATCH.student_entropy, torch.nan)
CHOSEN = sorted(VALUES[MASK].tolist())


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.77, 1.0])
def test_quantile_equals_that_of_torch(share):
    found = reductions.quantile(VALUES, MASK, share)
    torch.testing.assert_close(found, torch.quantile(VALUES[MASK], share))


def test_quantile_of_infinite_values_and_of_an_empty_mask():
    values = torch.tensor([[-torch.inf, -torch.inf, 1.0]])
    assert reductions.quantile(values, torch.ones(1, 3).bool(), 0.5) == -torch.inf
    assert reductions.quantile(values, torch.zeros(1, 3).bool(), 0.5) == 0


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
def test_top_selects_the_largest(share):
    chosen = reductions.top(VALUES, MASK, share)
    number = math.floor(share * (len(CHOSEN) - 1)) + 1
    assert sorted(VALUES[chosen].tolist()) == CHOSEN[len(CHOSEN) - number :]
    assert not (chosen & ~MASK).any()


def test_ties_are_selected_together():
    values = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]])
    assert reductions.top(values, torch.ones(1, 5).bool(), 0.2).tolist() == [[False, True, True, True, False]]


@pytest.mark.parametrize("number", [1, 2, len(CHOSEN), 999])
def test_the_lowest_values(number):
    chosen = reductions.lowest(VALUES, MASK, number)
    assert sorted(VALUES[chosen].tolist()) == CHOSEN[:number]
    assert not (chosen & ~MASK).any()
    assert not reductions.lowest(VALUES, torch.zeros_like(MASK), number).any()


def test_min_max_scales_to_zero_and_one():
    scaled = reductions.min_max(VALUES, MASK)
    low, high = CHOSEN[0], CHOSEN[-1]
    expected = torch.where(MASK, (VALUES - low) / (high - low), 0.0)
    torch.testing.assert_close(scaled, expected)
    assert reductions.min_max(torch.full_like(VALUES, 3.0), MASK).abs().max() == 0
    assert reductions.min_max(VALUES, torch.zeros_like(MASK)).abs().max() == 0


def test_standardized_over_groups():
    values, groups = torch.tensor([1.0, 5.0, 0.1, 0.1, 0.1, 2.0, 4.0]), torch.tensor([3, 8, 1, 1, 1, 3, 3])
    found = reductions.standardized(values, groups).tolist()
    mean = (1 + 2 + 4) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in (1, 2, 4)) / 2)
    expected = [(x - mean) / (deviation + 1e-6) for x in (1, 2, 4)]
    assert [found[0], found[5], found[6]] == pytest.approx(expected, abs=1e-5)
    assert found[1:5] == pytest.approx([0.0] * 4, abs=0.05), "single and equal values have score 0"


@pytest.mark.parametrize(("value", "number"), [(0.6, 8), (0.7, 15), (0.9, 3), (0.1, 8)])
def test_equal_values_have_score_0_despite_rounding(value, number):
    scores = reductions.standardized(torch.full((number,), value), torch.zeros(number, dtype=torch.int64))
    assert scores.abs().max() == 0


def test_non_finite_values_do_not_affect_other_scores():
    values, groups = torch.tensor([-torch.inf, 1.0, 2.0, torch.nan]), torch.zeros(4, dtype=torch.int64)
    scores = reductions.standardized(values, groups)
    torch.testing.assert_close(scores, torch.tensor([0.0, -0.7071, 0.7071, 0.0]), rtol=0, atol=1e-4)

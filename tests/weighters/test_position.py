"""Weighters by position, top-k overlap and teacher likelihood."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import with_signals

from fireopd.method import Method
from fireopd.weighters import OverlapDecayWeighter, PositionWeighter, TeacherLikelihoodWeighter, WindowWeighter


def rows_of(batch, weight):
    return [weight[row][batch.response_mask[row]].tolist() for row in range(len(batch.teachers))]


def test_numbers_of_the_position_weights():
    """Four tokens, defaults: .361035, .759384, .972005, .997620."""
    batch = full_batch(1, 7)
    mask = torch.tensor([[False, True, True, True, True, False, False]])
    batch = replace(batch, response_mask=mask)
    expected = [0.361035, 0.759384, 0.972005, 0.997620]
    assert rows_of(batch, PositionWeighter()(batch))[0] == pytest.approx(expected, abs=1e-6)


def test_position_weights_of_rows_of_all_lengths():
    batch = full_batch(10, 20)
    weighter = PositionWeighter(0.1, 0.5, 0.2)
    for own, row in zip(batch.lengths.tolist(), rows_of(batch, weighter(batch)), strict=True):
        places = [((t - 0.5) / own - 0.5) / 0.2 for t in range(1, own + 1)]
        assert row == pytest.approx([0.1 + 0.9 / (1 + math.exp(-x)) for x in places], abs=1e-6)


@pytest.mark.parametrize(
    "weighter", [PositionWeighter(1.0), OverlapDecayWeighter(drop=0.0), WindowWeighter(999)], ids=str
)
def test_neutral_settings_are_plain_opd(weighter):
    batch = full_batch()
    for normalization in ("none", "trajectory"):
        one, plain = (
            Method(token_weighter=w, normalization=normalization).targets(batch)
            for w in (weighter, WindowWeighter(10**6))
        )
        assert torch.equal(one.weight, plain.weight)
        assert torch.equal(one.weight, plain.mask.float())


def test_the_first_tokens_of_each_response():
    batch = full_batch(10, 20)
    for own, row in zip(batch.lengths.tolist(), rows_of(batch, WindowWeighter(4)(batch)), strict=True):
        assert row == [1.0] * min(4, own) + [0.0] * max(0, own - 4)


def test_a_random_window_is_within_the_response_and_of_its_size():
    batch = full_batch(40, 20)
    starts = set()
    for step in range(3):
        weight = WindowWeighter(4, "random")(replace(batch, policy_version=step))
        for own, row in zip(batch.lengths.tolist(), rows_of(batch, weight), strict=True):
            assert sum(row) == min(4, own)
            first = row.index(1.0)
            assert row[first : first + min(4, own)] == [1.0] * min(4, own)
            starts.add(first)
    assert starts >= set(range(8))
    other = WindowWeighter(4, "random", seed=1)(replace(batch, policy_version=2))
    assert not torch.equal(other, weight)


def test_every_token_of_low_overlap_reduces_the_weight():
    batch = full_batch(10, 20)
    weighter = OverlapDecayWeighter(0.6, 0.15, 0.25)
    overlaps = rows_of(batch, batch.topk_overlap)
    for row, overlap in zip(rows_of(batch, weighter(batch)), overlaps, strict=True):
        apart, expected = 0, []
        for value in overlap:
            apart += value < 0.6
            expected.append(max(0.0, 1 - 0.15 * apart) + 0.25)
        assert row == pytest.approx(expected, abs=1e-6)


def test_likelier_trajectories_have_larger_weights_unless_normalised_per_trajectory():
    batch = full_batch()
    means = [sum(row) / len(row) for row in rows_of(batch, batch.teacher_logprobs)]
    for temperature in (1.0, 3.0):
        weight = TeacherLikelihoodWeighter(temperature)(batch)
        for row, mean in zip(rows_of(batch, weight), means, strict=True):
            assert row == pytest.approx([math.exp((mean - max(means)) / temperature)] * len(row), rel=1e-5)
    undone = Method(token_weighter=TeacherLikelihoodWeighter()).targets(batch)
    torch.testing.assert_close(undone.weight, undone.mask.float())
    kept = Method(token_weighter=TeacherLikelihoodWeighter(), normalization="batch").targets(batch)
    assert kept.weight.max() > 1.5


def test_a_trajectory_of_probability_0_has_weight_0():
    batch = full_batch()
    impossible = batch.teacher_logprobs.clone()
    impossible[3] = torch.where(batch.response_mask[3], -torch.inf, 0.0)
    weight = TeacherLikelihoodWeighter()(with_signals(batch, teacher_logprobs=impossible))
    assert weight[3].abs().max() == 0
    assert weight.max() == 1


def test_a_low_temperature_selects_the_likeliest_trajectory():
    weight = TeacherLikelihoodWeighter(1e-3)(full_batch())
    assert weight.max() == 1
    assert (weight[:, 0] > 0.5).sum() == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PositionWeighter(floor=2), r"floor must be in \[0, 1\], got 2"),
        (lambda: PositionWeighter(width=0), "width must be greater than 0, got 0"),
        (lambda: WindowWeighter(0), "size must be at least 1, got 0"),
        (lambda: OverlapDecayWeighter(drop=-1), "drop must be at least 0, got -1"),
        (lambda: TeacherLikelihoodWeighter(0), "temperature must be greater than 0, got 0"),
    ],
)
def test_settings_have_a_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()

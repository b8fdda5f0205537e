"""Trajectory filters: kept trajectories, edge cases, composition."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import scored_batch

from fireopd.filters import AllOf, KeepAll, LengthFilter, TeacherLikelihoodFilter


def with_scores(scores, teachers=None):
    """Return a batch with one response token per row, whose log-probability under the teacher is the row's score."""
    batch = scored_batch(len(scores), 3, teachers=teachers)
    mask = torch.zeros(len(scores), 3, dtype=torch.bool)
    mask[:, 1] = True
    logprobs = torch.zeros(len(scores), 3)
    logprobs[:, 1] = torch.tensor(scores)
    return replace(batch, response_mask=mask, signals={"teacher_logprobs": logprobs})


@pytest.mark.parametrize(
    ("rows", "dropped"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 2), (8, 2), (16, 3), (32, 7), (64, 13)]
)
def test_number_of_dropped_trajectories_follows_the_quantile(rows, dropped):
    """The released rule drops ceil(p (n - 1)) of n trajectories, and none of 1."""
    batch = with_scores([-float(i) for i in range(rows)])
    keep = TeacherLikelihoodFilter(0.2)(batch)
    assert keep.tolist() == [True] * (rows - dropped) + [False] * dropped


def test_ties_are_kept():
    assert TeacherLikelihoodFilter(0.5)(with_scores([-1.0, -1.0, -1.0, -1.0])).all()


def test_one_quantile_over_two_teachers_can_drop_a_whole_domain():
    scores, teachers = [-1.0, -1.1, -1.2, -3.0, -3.1, -3.2], ["code"] * 3 + ["math"] * 3
    batch = with_scores(scores, teachers)
    assert TeacherLikelihoodFilter(0.5)(batch).tolist() == [True] * 3 + [False] * 3
    apart = TeacherLikelihoodFilter(0.5, per_teacher=True)(batch).tolist()
    assert apart == [True, True, False, True, True, False]


@pytest.mark.parametrize("bad", [-torch.inf, torch.nan])
def test_a_trajectory_of_probability_0_is_dropped_first(bad):
    batch = with_scores([-1.0, -2.0, bad, -3.0])
    assert TeacherLikelihoodFilter(0.2)(batch).tolist() == [True, True, False, True]


def test_empty_responses_are_dropped_and_excluded_from_the_quantile():
    batch = with_scores([-1.0, -2.0, -3.0])
    mask = batch.response_mask.clone()
    mask[0] = False
    assert TeacherLikelihoodFilter(0.0)(replace(batch, response_mask=mask)).tolist() == [False, True, True]
    assert not TeacherLikelihoodFilter(0.2)(replace(batch, response_mask=torch.zeros_like(mask))).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_drop_fraction_has_a_range(fraction):
    with pytest.raises(ValueError, match=r"drop_fraction must be in \[0, 1\), got"):
        TeacherLikelihoodFilter(fraction)


def test_length_filter():
    batch = replace(scored_batch(3, 6), finished=torch.tensor([True, False, True]))
    mask = torch.tensor([[0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]]).bool()
    batch = replace(batch, response_mask=mask)
    assert LengthFilter(2)(batch).tolist() == [False, True, True]
    assert LengthFilter(max_tokens=3)(batch).tolist() == [True, True, False]
    assert LengthFilter(only_finished=True)(batch).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="max_tokens"):
        LengthFilter(5, 4)
    with pytest.raises(ValueError, match="min_tokens"):
        LengthFilter(-1)


def test_all_of_is_the_conjunction_and_each_part_sees_the_whole_batch():
    batch = scored_batch(12)
    parts = [TeacherLikelihoodFilter(0.4), LengthFilter(3)]
    both = AllOf(parts)(batch)
    assert torch.equal(both, parts[0](batch) & parts[1](batch))
    assert AllOf(parts).requires == {"teacher_logprobs"}
    assert torch.equal(AllOf([])(batch), KeepAll()(batch))

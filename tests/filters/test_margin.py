"""Margin filter: dropped trajectories, order and stopping rule."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import full_batch

from fireopd.filters import MarginFilter


def one_token_each(returns, rewards, groups=None):
    """Return a batch with one response token per row, whose log-ratio is the row's return."""
    batch = full_batch(len(returns), 3)
    mask = torch.zeros(len(returns), 3, dtype=torch.bool)
    mask[:, 1] = True
    logprobs = torch.zeros(len(returns), 3)
    logprobs[:, 1] = torch.tensor(returns)
    signals = {"teacher_logprobs": logprobs, "student_logprobs": torch.zeros_like(logprobs)}
    signals["rewards"] = torch.tensor(rewards, dtype=torch.float32)
    groups = torch.tensor(groups or [0] * len(returns))
    return replace(batch, response_mask=mask, groups=groups, signals=signals)


def naive(returns, rewards, margin, least_kept):
    """Return the mask of a greedy search that tries to drop every trajectory."""
    left = list(range(len(returns)))

    def gap(rows):
        good, bad = ([returns[row] for row in rows if bool(rewards[row]) is kind] for kind in (True, False))
        return sum(good) / len(good) - sum(bad) / len(bad) if good and bad else None

    def may_go(row):
        kind = [other for other in range(len(returns)) if rewards[other] == rewards[row]]
        return sum(other in left for other in kind) - 1 >= max(1, int(least_kept * len(kind)))

    while gap(left) is not None and gap(left) < margin:
        tries = {row: gap([other for other in left if other != row]) for row in left if may_go(row)}
        if not tries or max(tries.values()) <= gap(left):
            break
        left.remove(max(tries, key=lambda row: tries[row]))
    return [row in left for row in range(len(returns))]


@pytest.mark.parametrize("seed", range(20))
def test_the_mask_equals_exhaustive_search(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = int(torch.randint(1, 9, (1,), generator=generator))
    returns = torch.randn(rows, generator=generator).tolist()
    rewards = torch.randint(0, 2, (rows,), generator=generator).tolist()
    for margin, least_kept in ((0.4, 0.5), (3.0, 0.25), (3.0, 0.0), (-5.0, 0.0), (0.0, 1.0)):
        found = MarginFilter(margin, least_kept)(one_token_each(returns, rewards)).tolist()
        assert found == naive(returns, rewards, margin, least_kept)


def test_groups_are_compared_separately():
    returns, rewards = [0.0, 1.0, 5.0, 4.0], [1, 0, 1, 0]
    apart = MarginFilter(least_kept=0.0)(one_token_each([*returns, 9.0], [*rewards, 0], [0, 0, 1, 1, 1]))
    assert apart.tolist() == [True, True, True, True, False]


def test_the_minimum_holds_for_each_kind():
    """Eight correct responses far below one incorrect one: two of the eight remain."""
    kept = MarginFilter()(one_token_each([float(-row) for row in range(8)] + [9.0], [1] * 8 + [0]))
    assert kept.tolist() == [True, True] + [False] * 6 + [True]


def test_equal_returns_cannot_widen_the_gap():
    assert MarginFilter(least_kept=0.0)(one_token_each([0.0] * 6, [1, 1, 1, 0, 0, 0])).all()


def test_least_kept_has_a_range():
    with pytest.raises(ValueError, match=r"least_kept must be in \[0, 1\], got 2"):
        MarginFilter(least_kept=2)


def test_trajectories_of_probability_0_are_dropped_and_ignored():
    returns, rewards = [-torch.inf, 0.0, 1.0, -torch.inf, 2.0], [1, 1, 1, 0, 0]
    kept = MarginFilter(least_kept=0.0)(one_token_each(returns, rewards))
    assert kept.tolist() == [False, False, True, False, True], "the higher correct response is kept"


def test_an_empty_response_is_dropped():
    batch = one_token_each([0.0, 1.0, 2.0], [1, 1, 0])
    batch.response_mask[1] = False
    assert not MarginFilter(least_kept=0.0)(batch)[1]

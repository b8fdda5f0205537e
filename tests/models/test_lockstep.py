"""Micro-batches dealt to ranks: nothing lost, budgets kept, and equal work for ranks that wait for each other."""

import pytest
import torch

from fireopd.models.lockstep import deal_micro_batches
from fireopd.models.token_budget import by_token_budget

ROWS, LONGEST, BUDGET = 1024, 16384, 32768


def log_normal(seed):
    """Prompt and response lengths with a median of about 4,000 tokens, sigma 1, the longest cut."""
    drawn = (4000 * torch.randn(ROWS, generator=torch.Generator().manual_seed(seed)).exp()).long()
    return drawn.clamp(1, LONGEST) + 200


def computed(lengths, rounds):
    """Tokens of each rank in each round, padding included."""
    return torch.tensor([[len(rows) * int(lengths[rows].max()) if len(rows) else 0 for rows in r] for r in rounds])


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("ranks", [8, 16, 64])
def test_the_slowest_rank_works_at_most_a_tenth_more_than_the_mean(ranks, teachers):
    """A rank waits in each round for the largest micro-batch; the teachers score one after the other."""
    lengths, slowest, apart = log_normal(seed=0), 0, 0
    for teacher in range(teachers):
        own = lengths[teacher::teachers]
        rounds = deal_micro_batches(own, BUDGET, ranks)
        slowest += int(computed(own, rounds).amax(-1).sum())
        # Each rank cuts the rows that it sampled, which are every n-th.
        cuts = [[own[rank::ranks][rows] for rows in by_token_budget(own[rank::ranks], BUDGET)] for rank in range(ranks)]
        sizes = [[len(cut) * int(cut.max()) for cut in rank] for rank in cuts]
        apart += sum(max(s[place] for s in sizes if place < len(s)) for place in range(max(map(len, sizes))))
    mean = int(lengths.sum()) / ranks  # without padding
    assert slowest / mean <= 1.10
    assert apart / mean > 1.2, "there is something to even out"


@pytest.mark.parametrize("budget", [1, 100, 10**6])
@pytest.mark.parametrize("ranks", [1, 2, 3, 20])
def test_the_budget_holds_and_every_row_is_dealt_once(budget, ranks):
    lengths = torch.tensor([5, 90, 17, 33, 33, 2, 60, 0, 90])
    rounds = deal_micro_batches(lengths, budget, ranks)
    assert sorted(torch.cat([rows for dealt in rounds for rows in dealt]).tolist()) == list(range(9))
    for dealt in rounds:
        assert len(dealt) == ranks
        assert any(len(rows) for rows in dealt), "no round without work"
        assert all(len(rows) <= 1 or len(rows) * int(lengths[rows].max()) <= budget for rows in dealt)
    assert deal_micro_batches(lengths[:0], budget, ranks) == []


def test_one_rank_takes_the_cheapest_cut():
    lengths = log_normal(seed=1)
    rounds, cuts = deal_micro_batches(lengths, BUDGET, 1), by_token_budget(lengths, BUDGET)
    assert [dealt[0].tolist() for dealt in rounds] == [rows.tolist() for rows in cuts]
    assert {len(dealt) for dealt in rounds} == {1}


def test_few_rows_are_spread_over_the_ranks():
    """One micro-batch would hold them all, and leave the other ranks idle."""
    rounds = deal_micro_batches(torch.full((8,), 1000), 10**6, 4)
    assert [[len(rows) for rows in dealt] for dealt in rounds] == [[2, 2, 2, 2]]
    dealt = deal_micro_batches(torch.tensor([5, 3]), 100, 4)
    assert sum(len(rows) for r in dealt for rows in r) == 2


def test_the_dealing_does_not_depend_on_the_order_of_the_rows():
    lengths = log_normal(seed=2)[:64]
    shuffled = lengths[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    found = (computed(x, deal_micro_batches(x, BUDGET, 8)) for x in (lengths, shuffled))
    assert torch.equal(*found)

"""Cutting rows into micro-batches: little padding, nothing lost, and as cheap as the cheapest cut there is."""

from itertools import pairwise

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.models import make_model

from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.models.token_budget import MICRO_BATCH_TOKENS, by_token_budget
from fireopd.training.micro_batches import balance_over_ranks


def long_tailed(rows, median, seed):
    """Lengths of a log-normal distribution, the longest 16 times the median."""
    lengths = median * torch.randn(rows, generator=torch.Generator().manual_seed(seed)).exp()
    lengths = lengths.clamp(1, 16 * median).long()
    lengths[seed] = 16 * median
    return lengths


def cost(lengths, cuts):
    """Tokens computed, padding included, and what launching costs."""
    return sum(len(rows) * int(lengths[rows].max()) + MICRO_BATCH_TOKENS for rows in cuts)


@pytest.mark.parametrize("budget", [1, 100, 10**6])
def test_the_budget_holds_and_every_row_has_its_place(budget):
    lengths = torch.tensor([5, 90, 17, 33, 33, 2, 60, 0])
    cuts = by_token_budget(lengths, budget)
    assert sorted(torch.cat(cuts).tolist()) == list(range(8))
    assert all(len(rows) == 1 or len(rows) * int(lengths[rows].max()) <= budget for rows in cuts)
    ordered = lengths[torch.cat(cuts)]
    assert all(one >= other for one, other in pairwise(ordered.tolist()))
    assert by_token_budget(lengths[:0], budget) == []
    assert [rows.tolist() for rows in by_token_budget(lengths[:1], budget)] == [[0]]


def test_no_cut_of_the_sorted_rows_is_cheaper():
    """Against all 512 ways to cut ten rows."""
    generator, budget = torch.Generator().manual_seed(0), 1200
    for _ in range(5):
        lengths = (200 * torch.randn(10, generator=generator).exp()).long().clamp(1, 1100)
        order = lengths.argsort(descending=True)
        costs = []
        for way in range(2**9):
            places = [place + 1 for place in range(9) if way >> place & 1]
            cuts = order.tensor_split(places)
            if all(len(rows) * int(lengths[rows].max()) <= budget for rows in cuts):
                costs.append(cost(lengths, cuts))
        assert cost(lengths, by_token_budget(lengths, budget)) == min(costs)


@pytest.mark.parametrize("median", [40, 100, 400, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_tail_is_hardly_padded(median, seed):
    lengths = long_tailed(256, median, seed)
    cuts = by_token_budget(lengths, 16384)
    computed = sum(len(rows) * int(lengths[rows].max()) for rows in cuts)
    assert computed <= 1.1 * int(lengths.sum())


def test_the_student_reads_what_was_counted():
    """Tokens that go into the model, counted there."""
    rollouts = rollouts_of(scored_batch(24, 30, seed=3))
    lengths = rollouts.attention_mask.sum(-1)
    model, seen = make_model("tied"), []
    hook = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    score_rollouts(CausalScorer(model), rollouts, entropy=False, token_budget=300)
    hook.remove()
    expected = [len(rows) * int(lengths[rows].max()) for rows in by_token_budget(lengths, 300)]
    assert seen == expected
    assert sum(seen) >= int(lengths.sum())


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_every_rank_has_as_much_to_do(ranks):
    lengths = long_tailed(1024, 400, seed=1)
    rows = torch.randperm(1024, generator=torch.Generator().manual_seed(0))[:700]
    parts = balance_over_ranks(rows, lengths, ranks)
    assert sorted(torch.cat(parts).tolist()) == sorted(rows.tolist())
    loads = [int(lengths[part].sum()) for part in parts]
    assert max(loads) <= 1.01 * min(loads)
    if ranks > 1:
        apart = [int(lengths[part].sum()) for part in rows.sort().values.tensor_split(ranks)]
        assert max(apart) > 1.05 * sum(apart) / ranks, "there was something to even out"


def test_fewer_rows_than_ranks_leave_some_without():
    parts = balance_over_ranks(torch.tensor([4, 2]), torch.tensor([9, 9, 5, 9, 7]), 3)
    assert [part.tolist() for part in parts] == [[4], [2], []]
    empty = balance_over_ranks(torch.tensor([], dtype=torch.int64), torch.tensor([3]), 2)
    assert [part.tolist() for part in empty] == [[], []]

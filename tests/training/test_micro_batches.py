"""Cutting rows into micro-batches: little padding, nothing lost, and as cheap as the cheapest cut there is."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.models import make_model

from fireopd.distributed import collectives
from fireopd.filters import TrajectoryFilter
from fireopd.method import Method
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.models.token_budget import MICRO_BATCH_TOKENS, by_token_budget
from fireopd.training.gradients import accumulate_gradients
from fireopd.training.update_targets import MicroBatchTargets
from fireopd.weighters import UncertainTokenWeighter


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


KEEP = torch.tensor([True, True, False, True, True])
"""Rows of the update below."""


class WithoutOneRow(TrajectoryFilter):
    """Drops a row."""

    def __call__(self, batch):
        return KEEP


METHOD = Method(WithoutOneRow(), UncertainTokenWeighter(scope="trajectory"))


def rank_by_rank(monkeypatch, ranks, budget):
    """Run one update rank after rank; return loss, gradient and the student's signals, each summed over the ranks."""
    batch = scored_batch(5, 12, seed=4, dtype=torch.float64)
    signals = {name: value for name, value in batch.signals.items() if not name.startswith("student")}
    batch, total = replace(batch, signals=signals), {}
    monkeypatch.setattr(collectives, "world_size", lambda: ranks)
    for rank in range(ranks):
        monkeypatch.setattr(collectives, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(collectives, "all_reduce_sum", lambda value: value)
        scorer = CausalScorer(make_model("tied", torch.float64))
        update = MicroBatchTargets(METHOD, batch)
        rows = KEEP.nonzero().squeeze(-1)
        loss = accumulate_gradients(scorer, update, slice(0, 5), rows, None, budget, lambda part: part.backward())
        gradient = torch.cat([p.grad.flatten() for p in scorer.parameters()]) / ranks
        for name, value in {"loss": loss, "gradient": gradient, **update.signals}.items():
            total[name] = total.get(name, 0) + value
    return total


@pytest.mark.parametrize("budget", [1, 20, 10_000])
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_an_update_does_not_depend_on_the_dealing(monkeypatch, ranks, budget):
    """Also with fewer micro-batches than ranks: an idle row adds neither loss nor scores."""
    expected, found = (rank_by_rank(monkeypatch, number, size) for number, size in ((1, 10_000), (ranks, budget)))
    assert expected["gradient"].abs().max() > 0
    assert found.keys() == expected.keys() == {"loss", "gradient", "student_logprobs", "student_entropy"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)

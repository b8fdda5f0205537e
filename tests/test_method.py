"""Invariances of all built-in strategies: row order, padding, garbage off the mask, edge cases."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import full_batch
from torch.nn.functional import pad

from fireopd import filters, objectives, weighters
from fireopd.filters import TrajectoryFilter
from fireopd.method import Method
from fireopd.objectives import DirectObjective, GroupRewardReverseKL, Objective
from fireopd.types.signals import PER_TRAJECTORY
from fireopd.weighters import TokenWeighter


def built_in(package, base):
    made = [vars(package)[name] for name in package.__all__]
    return [Method(**{FIELD[base]: strategy()}) for strategy in made if strategy not in (base, DirectObjective)]


FIELD = {TrajectoryFilter: "trajectory_filter", TokenWeighter: "token_weighter", Objective: "objective"}
METHODS = [
    *built_in(filters, TrajectoryFilter),
    *built_in(weighters, TokenWeighter),
    *built_in(objectives, Objective),
    Method(filters.BalanceFilter("batch")),
    Method(filters.MarginFilter(scope="batch")),
    Method(token_weighter=weighters.PhasedEntropyWeighter(switch_step=0)),
    Method(token_weighter=weighters.WindowWeighter(2, "random")),
    Method(objective=objectives.MarginReverseKL(scope="batch", gap="extreme")),
]


def name(method):
    parts = [part for part in method.strategies.values() if type(part).__name__ not in ("KeepAll", "UniformWeighter")]
    return " ".join(str(part) for part in parts)


def read(batch, change):
    """Return the batch with all signals changed."""
    return replace(batch, signals={name: change(name, value) for name, value in batch.signals.items()})


def widened(batch):
    per_token = {"tokens": pad(batch.tokens, (0, 5), value=7), "response_mask": pad(batch.response_mask, (0, 5))}
    return read(replace(batch, **per_token), lambda n, v: v if n in PER_TRAJECTORY else pad(v, (0, 5), value=99.0))


def planted(batch):
    return read(batch, lambda n, v: v if n in PER_TRAJECTORY else torch.where(batch.response_mask, v, torch.nan))


def close(found, expected, context):
    for name, value in expected.tensors.items():
        torch.testing.assert_close(found.tensors[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_order_padding_and_garbage_have_no_effect(method):
    batch = full_batch(12, 14, seed=6)
    targets = method.targets(batch)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    close(method.targets(batch.select(order)), targets.select(torch.tensor(order), 14), "order")
    close(method.targets(widened(batch)).select(torch.arange(12), 14), targets, "padding")
    close(method.targets(planted(batch)), targets, "garbage")


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_edge_cases_give_finite_targets(method):
    batch = full_batch(4, 9, seed=7)
    one_row = batch.select([1])
    one_token = torch.zeros_like(one_row.response_mask)
    one_token[0, int(one_row.response_mask[0].int().argmax())] = True
    nothing = torch.zeros_like(batch.response_mask)
    same = read(batch, lambda n, v: v if n in PER_TRAJECTORY else torch.where(batch.response_mask, -0.5, 0.0))
    zero = read(batch, lambda n, v: torch.zeros_like(v))
    for extreme in (
        one_row,
        replace(one_row, response_mask=one_token),
        replace(batch, response_mask=nothing),
        same,
        zero,
    ):
        for value in method.targets(extreme).tensors.values():
            assert value.isfinite().all()


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_the_same_batch_gives_the_same_targets_and_no_gradient(method):
    batch = full_batch(seed=8)
    leaf = read(batch, lambda n, v: v.clone().requires_grad_())
    one, two = method.targets(batch), method.targets(leaf)
    for name, value in one.tensors.items():
        assert torch.equal(two.tensors[name], value)
        assert not two.tensors[name].requires_grad


def test_with_a_micro_batch_of_one_the_objective_still_sees_whole_groups():
    batch = full_batch()
    whole, alone = (
        Method(objective=GroupRewardReverseKL(0.0), population=population).targets(batch)
        for population in ("rollout_batch", "micro_batch_of_one")
    )
    assert whole.advantage.abs().max() > 0.5
    torch.testing.assert_close(alone.advantage, whole.advantage)

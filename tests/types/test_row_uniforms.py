"""Random numbers of strategies: a function of seed, step and tokens only."""

from dataclasses import replace

import torch
from helpers.fakes import scored_batch
from torch.nn.functional import pad

from fireopd.types.row_uniforms import row_uniforms


def test_row_uniforms_do_not_depend_on_row_order_and_padding():
    batch = scored_batch(8, 12)
    drawn = row_uniforms(batch, "any", 0)
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    assert torch.equal(row_uniforms(batch.select(order), "any", 0), drawn[order])
    wider = replace(batch, tokens=pad(batch.tokens, (0, 5), value=9), response_mask=pad(batch.response_mask, (0, 5)))
    assert torch.equal(row_uniforms(wider, "any", 0), drawn)
    assert torch.equal(row_uniforms(batch.select([2]), "any", 0), drawn[[2]])


def test_row_uniforms_depend_on_seed_step_and_strategy_class():
    batch = scored_batch(8, 12)
    drawn = [row_uniforms(batch, "any", seed) for seed in (0, 1)]
    drawn += [row_uniforms(replace(batch, policy_version=1), "any", 0), row_uniforms(batch, 7, 0)]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 4


def test_row_uniforms_are_uniform():
    drawn = torch.cat([row_uniforms(scored_batch(500, 12, seed=seed), "any", 3) for seed in range(4)])
    assert len(drawn.unique()) > 1990, "short trajectories may be equal"
    assert 0 <= drawn.min() < 0.01
    assert 0.99 < drawn.max() < 1
    assert torch.histc(drawn.float(), 10, 0, 1).min() > 150

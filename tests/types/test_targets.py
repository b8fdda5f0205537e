"""Targets: selection of rows, and coefficients with one trajectory at a time."""

import pytest
import torch
from helpers.fakes import full_batch

from fireopd.method import Method
from fireopd.objectives import ReverseKL, SignGatedKL
from fireopd.weighters import EntropyWeighter


@pytest.mark.parametrize("objective", [ReverseKL(), SignGatedKL()], ids=str)
def test_select_takes_rows(objective):
    batch = full_batch(6, 12)
    targets = Method(token_weighter=EntropyWeighter(), objective=objective).targets(batch)
    assert ("coefficient" in targets.tensors) == isinstance(objective, SignGatedKL)
    rows = torch.tensor([4, 1])
    some = targets.select(rows, 7)
    for name, value in targets.tensors.items():
        expected = value[rows] if name == "keep" else value[rows, :7]
        assert torch.equal(some.tensors[name], expected)


def test_one_trajectory_at_a_time_has_coefficients_too():
    batch = full_batch(6, 12)
    alone = Method(objective=SignGatedKL(), population="micro_batch_of_one").targets(batch)
    assert torch.equal(alone.coefficient, Method(objective=SignGatedKL()).targets(batch).coefficient)

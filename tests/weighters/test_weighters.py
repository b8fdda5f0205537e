"""Token weighters: range, edge cases, composition."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import scored_batch

from fireopd.weighters import EntropyWeighter, ProductOf, UniformWeighter


def test_entropy_weights_lie_between_one_and_the_product():
    weight = EntropyWeighter(1.0, 2.0)(scored_batch(20, 15))
    assert weight.min() >= 1
    assert weight.max() <= 6


def test_confidence_and_confusion_raise_the_weight():
    batch = scored_batch(1, 5)
    mask = torch.tensor([[False, True, True, True, True]])
    teacher, student = torch.tensor([[0.0, 0, 2, 0, 2]]), torch.tensor([[0.0, 0, 0, 4, 4]])
    batch = replace(batch, response_mask=mask, signals={"teacher_entropy": teacher, "student_entropy": student})
    assert EntropyWeighter()(batch)[0, 1:].tolist() == [2.0, 1.0, 4.0, 2.0]
    assert EntropyWeighter(alpha=0)(batch)[0, 1:].tolist() == [1.0, 1.0, 2.0, 2.0]
    assert EntropyWeighter(beta=0)(batch)[0, 1:].tolist() == [2.0, 1.0, 2.0, 1.0]


def test_constant_entropies_give_finite_weights():
    batch = scored_batch()
    zero = torch.zeros_like(batch.teacher_entropy)
    batch = replace(batch, signals={"teacher_entropy": zero, "student_entropy": zero})
    assert torch.equal(EntropyWeighter()(batch), torch.full_like(zero, 2.0))
    nothing = replace(batch, response_mask=torch.zeros_like(batch.response_mask))
    assert EntropyWeighter()(nothing).isfinite().all()


@pytest.mark.parametrize("settings", [{"alpha": -1}, {"beta": -0.5}, {"alpha": float("nan")}])
def test_strengths_have_a_range(settings):
    with pytest.raises(ValueError, match="must be at least 0, got"):
        EntropyWeighter(**settings)


def test_product_of_multiplies():
    batch = scored_batch()
    one, two = EntropyWeighter(1, 0), EntropyWeighter(0, 1)
    torch.testing.assert_close(ProductOf([one, two])(batch), EntropyWeighter(1, 1)(batch))
    assert torch.equal(ProductOf([])(batch), UniformWeighter()(batch))
    assert ProductOf([one, UniformWeighter()]).requires == one.requires

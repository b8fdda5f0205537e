"""Methods against the recorded answers of their released code (`tests/golden/methods_reference.json`)."""

import pytest
import torch
from helpers.golden import METHODS, methods_batch, official

from fireopd.objectives import CreditedReverseKL


@pytest.fixture(params=METHODS, ids=lambda case: f"seed_{case['seed']}")
def case(request):
    return request.param


@pytest.mark.parametrize("limit", [None, 10.0])
@pytest.mark.parametrize("strength", [0.05, 1.0])
def test_gc_opd(case, strength, limit):
    batch = methods_batch(case)
    found = CreditedReverseKL(strength, limit=limit).advantage(batch)
    expected = official(case, f"gc_opd_advantage/beta={strength}/clip={limit}")
    torch.testing.assert_close(found[batch.response_mask], expected[batch.response_mask], rtol=1e-6, atol=2e-6)

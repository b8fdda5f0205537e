"""Conformance tests for strategies: one call checks the whole contract and reports all violations.

from fireopd.testing import check_weighter

def test_the_contract():
    check_weighter(MyWeighter(power=2.0))
"""

from fireopd.testing.checks import check_filter, check_objective, check_weighter
from fireopd.testing.example_batches import example_batch
from fireopd.testing.expected_gradients import expected_gradient

__all__ = ["check_filter", "check_objective", "check_weighter", "example_batch", "expected_gradient"]

"""Conformance tests for plug-ins: one call checks the whole contract and reports all violations.

from fireopd.testing import check_weighter

def test_the_contract():
    check_weighter(MyWeighter(power=2.0))
"""

from fireopd.testing.checks import check_filter, check_objective, check_weighter
from fireopd.testing.engine_checks import check_engine
from fireopd.testing.example_batches import example_batch
from fireopd.testing.expected_gradients import expected_gradient
from fireopd.testing.plan_checks import check_plan
from fireopd.testing.prompt_checks import check_prompts
from fireopd.testing.teacher_checks import check_teacher
from fireopd.testing.verifier_checks import check_verifier
from fireopd.testing.warning import ConformanceWarning

__all__ = [
    "ConformanceWarning",
    "check_engine",
    "check_filter",
    "check_objective",
    "check_plan",
    "check_prompts",
    "check_teacher",
    "check_verifier",
    "check_weighter",
    "example_batch",
    "expected_gradient",
]

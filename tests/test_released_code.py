"""Methods against the recorded answers of their released code (`tests/golden/methods_reference.json`)."""

import pytest
import torch
from helpers.golden import METHODS, methods_batch, official

from fireopd.filters import AgreementFilter, MarginFilter
from fireopd.method import Method
from fireopd.objectives import CreditedReverseKL, FixedPenalty, TopKPolicyGradient
from fireopd.weighters import AgreementWeighter, UnlikelyTokenWeighter

WITH_LOGITS = [case for case in METHODS if "student_logits" in case["inputs"]]


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


def test_fixed_penalty(case):
    batch = methods_batch(case)
    method = Method(token_weighter=UnlikelyTokenWeighter(), objective=FixedPenalty(), normalization="batch")
    selected = official(case, "opsa_fixed_negative_selected/fraction=0.2").bool()
    targets, number = method.targets(batch), batch.response_mask.sum()
    assert torch.equal(targets.weight > 0, selected)
    loss_of_token = -targets.weight * targets.advantage / number
    torch.testing.assert_close(loss_of_token, 0.5 * selected / selected.sum())


@pytest.mark.parametrize(("scope", "recorded"), [("group", "group"), ("batch", "global")])
def test_uni_opd_mask(case, scope, recorded):
    found = MarginFilter(margin=0.4, least_kept=0.25, scope=scope)(methods_batch(case))
    assert torch.equal(found, official(case, f"uni_opd_mask_keep/{recorded}/retain=0.25").bool())


def test_rg_opd_gates(case):
    batch = methods_batch(case)
    mask = batch.response_mask
    per_token = (AgreementWeighter()(batch) > 0) & mask
    assert torch.equal(per_token, official(case, "rg_opd_gate_per_token_released").bool())
    trajectory = AgreementFilter()(batch)[:, None] & mask
    assert torch.equal(trajectory, official(case, "rg_opd_gate_trajectory_paper").bool())


@pytest.mark.parametrize(
    "case", [case for case in METHODS if "student_logits" in case["inputs"]], ids=lambda c: c["seed"]
)
@pytest.mark.parametrize(
    ("support", "recorded"),
    [("student", "only_stu"), ("teacher", "only_tch"), ("union", "union"), ("intersection", "intersection")],
)
def test_thunlp_top_k(case, support, recorded):
    logits, teacher = (torch.tensor(case["inputs"][f"{name}_logits"]) for name in ("student", "teacher"))
    mask = methods_batch(case).response_mask
    logits.requires_grad_()
    divergence = TopKPolicyGradient(4, support).divergence(logits[mask].log_softmax(-1), teacher[mask].log_softmax(-1))
    (found,) = torch.autograd.grad(divergence.mean(), logits)
    expected = official(case, f"thunlp_gradient_of_student_logits/{recorded}/k=4")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-7)

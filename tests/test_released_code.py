"""Methods against the recorded answers of their released code (`tests/golden/methods_reference.json`)."""

import pytest
import torch
from helpers.golden import METHODS, methods_batch, official

from fireopd.filters import AgreementFilter, MarginFilter
from fireopd.method import Method
from fireopd.objectives import (
    CreditedReverseKL,
    DualPathReverseKL,
    EntropyRankedPenalty,
    FixedPenalty,
    ReturnToGo,
    ReverseKL,
    TailResidualKL,
    TeacherScaledReverseKL,
    TopKPolicyGradient,
    VerdictGatedReverseKL,
)
from fireopd.weighters import AgreementWeighter, PrefixDiscrepancyWeighter, UnlikelyTokenWeighter

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


def check_advantage(objective, case, key):
    batch = methods_batch(case)
    found, expected = objective.advantage(batch), official(case, key)
    torch.testing.assert_close(found[batch.response_mask], expected[batch.response_mask], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_opsa(case, share):
    check_advantage(EntropyRankedPenalty(share), case, f"opsa_advantage/fraction={share}")
    chosen = UnlikelyTokenWeighter(share)(methods_batch(case)) > 0
    assert torch.equal(chosen, official(case, f"opsa_advantage/fraction={share}") < 0)


@pytest.mark.parametrize(("scale", "norm"), [("centered", False), ("standardized", True)])
def test_grpd(case, scale, norm):
    check_advantage(VerdictGatedReverseKL(scale=scale), case, f"grpd_advantage/norm_by_std={norm}")


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_minillm_of_trl(case, discount):
    check_advantage(ReturnToGo(discount, length_normalization=True), case, f"minillm_trl_advantage/gamma={discount}")


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_scope(case, temperature):
    batch = methods_batch(case)
    weight = sum(official(case, f"scope_weights/{kind}/tau={temperature}") for kind in ("correct", "incorrect"))
    likelihood = (batch.rewards > 0.5)[:, None]
    expected = weight[:, None] * torch.where(likelihood, 1.0, ReverseKL().advantage(batch))
    found = DualPathReverseKL(temperature).advantage(batch)
    torch.testing.assert_close(found[batch.response_mask], expected[batch.response_mask], rtol=2e-6, atol=2e-6)


def test_iw_opd_of_trl(case):
    batch = methods_batch(case)
    found = PrefixDiscrepancyWeighter(0.5)(batch) * ReverseKL().advantage(batch)
    expected = official(case, "iw_opd_trl_advantage/gamma=0.5")
    torch.testing.assert_close(found[batch.response_mask], expected[batch.response_mask], rtol=1e-5, atol=1e-5)


def test_dn_mopd(case):
    check_advantage(TeacherScaledReverseKL(), case, "dn_mopd_advantage")


@pytest.mark.parametrize("case", WITH_LOGITS, ids=lambda c: c["seed"])
def test_res_opd(case):
    logits, teacher = (torch.tensor(case["inputs"][f"{name}_logits"]).double() for name in ("student", "teacher"))
    batch = methods_batch(case)
    mask = batch.response_mask
    logits.requires_grad_()
    tokens = batch.tokens[mask]
    loss = TailResidualKL(4).estimate(logits[mask].log_softmax(-1), teacher[mask].log_softmax(-1), tokens)
    (found,) = torch.autograd.grad(loss.mean(), logits)
    expected = official(case, "resopd_gradient_of_student_logits/k=4").double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", WITH_LOGITS, ids=lambda c: c["seed"])
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

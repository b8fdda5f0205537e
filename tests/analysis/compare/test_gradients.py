"""Gradients of methods at a student, against the plain loss and by cosine similarity."""

from dataclasses import dataclass

import pytest
import torch
from helpers.fakes import at_student, scored_batch

from fireopd.analysis.compare.gradients import alignments, gradient
from fireopd.analysis.compare.method_statistics import Recording
from fireopd.filters import LengthFilter
from fireopd.method import Method
from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.objectives import Objective, ReverseKL
from fireopd.weighters import TokenWeighter


@dataclass(frozen=True)
class PlaceWeighter(TokenWeighter):
    """Weighs the tokens of a row 1, 2, 3 ..."""

    def __call__(self, batch):
        return batch.response_mask.float().cumsum(-1)


@dataclass(frozen=True)
class Opposite(Objective):
    """The reverse KL with the wrong sign."""

    requires = ReverseKL.requires

    def advantage(self, batch):
        return batch.student_logprobs - batch.teacher_logprobs


def test_the_gradient_is_that_of_the_plain_loss():
    """In float64: in float32, rounding differs between processors by more than any fixed tolerance."""
    scorer = CausalScorer(load_causal_lm("tiny/student", "student", "float32").double().eval())
    batch = at_student(scorer, scored_batch(6, 12, dtype=torch.float64))
    method = Method(LengthFilter(min_tokens=2), PlaceWeighter(), reduction="trajectory")
    targets = method.targets(batch)
    logits = scorer.model(input_ids=batch.tokens).logits.log_softmax(-1)
    chosen = logits[:, :-1].gather(-1, batch.tokens[:, 1:, None]).squeeze(-1)
    loss = 0.0
    for row in targets.keep.nonzero().flatten().tolist():
        own = [t for t in range(12) if batch.response_mask[row, t]]
        gain = sum(targets.weight[row, t] * targets.advantage[row, t] * chosen[row, t - 1] for t in own)
        loss = loss - gain / len(own) / int(targets.keep.sum())
    parameters = list(scorer.parameters())
    reference = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    for token_budget in (1000, 12):
        found = gradient(scorer, batch, targets, method, token_budget)
        # The model's layer norms compute in float32 whatever its parameters are: some eps, by the shape of a batch.
        assert (found - reference).norm() <= 32 * torch.finfo(torch.float32).eps * reference.norm()


def test_cosine_with_itself_is_1_with_the_opposite_minus_1_and_norms_are_compared(scorer):
    methods = {"opd": Method(), "same": Method(clip_ratio=0.5), "opposite": Method(objective=Opposite())}
    methods["half"] = Method(importance_cap=0.5)
    batch = at_student(scorer, scored_batch(6, 12))
    answers = {name: [method.targets(batch)] for name, method in methods.items()}
    found = alignments(scorer, [Recording("file", batch)], methods, answers, token_budget=64)
    pairs = {(pair.first, pair.second): (pair.cosine, pair.norm_ratio) for pair in found.pairs}
    assert pairs["opd", "same"] == pytest.approx((1, 1), abs=1e-5)
    assert pairs["opd", "opposite"] == pytest.approx((-1, 1), abs=1e-5)
    assert pairs["opd", "half"] == pytest.approx((1, 2), abs=1e-5)
    assert found.student_gap < 1e-5


def test_a_method_without_gradient_has_no_cosine_and_another_student_is_noticed(scorer):
    methods = {"opd": Method(), "nothing": Method(LengthFilter(min_tokens=99))}
    batch = scored_batch(6, 12)
    answers = {name: [method.targets(batch)] for name, method in methods.items()}
    found = alignments(scorer, [Recording("file", batch)], methods, answers, token_budget=64)
    assert (found.pairs[0].cosine, found.pairs[0].norm_ratio) == (None, None)
    assert found.student_gap > 0.1
    assert not gradient(scorer, batch, answers["nothing"][0], methods["nothing"], 64).any()

"""Contracts of strategies: messages for invalid answers and undeclared signals."""

import pickle
from dataclasses import dataclass

import pytest
import torch
from helpers.fakes import scored_batch

from fireopd.errors import UserError
from fireopd.filters import AllOf, TrajectoryFilter
from fireopd.method import Method
from fireopd.models.distributions import TeacherDistributions
from fireopd.objectives import DirectObjective, Objective
from fireopd.training.objective_divergence import divergence_comparison
from fireopd.types.strategy import ContractError, UndeclaredSignalError
from fireopd.weighters import ProductOf, TokenWeighter


class Answering(TokenWeighter):
    def __init__(self, answer):
        self.answer = answer

    def __call__(self, batch):
        return self.answer(batch)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda b: torch.ones(len(b.teachers)),
            r"returned shape \[6\], expected \[6, 9\]. Return \[N, L\], one value per token",
        ),
        (lambda b: b.response_mask, "returned torch.bool. Return a floating-point"),
        (lambda b: b.response_mask * -1.0, "weight -1.0 for token.* Return finite weights >= 0"),
        (lambda b: b.response_mask * torch.nan, "weight nan"),
        (lambda b: b.response_mask * torch.inf, "weight inf"),
        (lambda b: None, r"returned None. Return a tensor \[N, L\]"),
    ],
)
def test_an_invalid_weight_is_reported_with_its_weighter(answer, message):
    with pytest.raises(
        ValueError, match=f"model.token_weighter: 'Answering': .*{message}.*fireopd.testing.check_weighter"
    ):
        Method(token_weighter=Answering(answer)).targets(scored_batch())


def test_an_invalid_mask_is_reported_with_its_filter():
    class Scores(TrajectoryFilter):
        def __call__(self, batch):
            return batch.lengths.float()

    with pytest.raises(
        ValueError, match=r"model.trajectory_filter: 'Scores': returned torch.float32. Return torch.bool"
    ):
        Method(Scores()).targets(scored_batch())


@pytest.mark.parametrize("answer", [["too few"], [None] * 6, "x" * 6])
def test_invalid_reasons_are_reported_with_their_filter(answer):
    class Terse(TrajectoryFilter):
        def __call__(self, batch):
            return batch.finished

        def reasons(self, batch):
            return answer

    with pytest.raises(ValueError, match=r"'Terse': returned the reasons .*. Return a list of 6 strings"):
        Method(Terse()).reasons(scored_batch())


def test_an_invalid_advantage_is_reported_with_its_objective():
    class Scalar(Objective):
        def advantage(self, batch):
            return torch.ones(())

    with pytest.raises(ValueError, match=r"model.objective: 'Scalar': returned shape \[\]"):
        Method(objective=Scalar()).targets(scored_batch())


@pytest.mark.parametrize(
    ("coefficient", "message"),
    [
        (lambda b: torch.ones(()), r"model.objective: 'Direct': returned shape \[\], expected \[6, 9\]"),
        (lambda b: b.response_mask, "'Direct': returned torch.bool"),
        (
            lambda b: b.response_mask * -1.0,
            r"'Direct': returned the coefficient -1.0 for token \d of trajectory 0. Return finite coefficients",
        ),
    ],
)
def test_invalid_answers_of_a_direct_objective_are_reported(coefficient, message):
    class Direct(DirectObjective):
        def coefficient(self, batch):
            return coefficient(batch)

        def divergence(self, student, teacher):
            return (student - teacher).abs()

    with pytest.raises(ValueError, match=message):
        Method(objective=Direct()).targets(scored_batch())
    measure = divergence_comparison(Direct(), TeacherDistributions((), ())).measure
    with pytest.raises(ValueError, match=r"'Direct': returned shape \[3, 8\], expected \[3\]"):
        measure(torch.randn(3, 8), torch.randn(3, 8), torch.zeros(3, dtype=torch.int64))


@dataclass(frozen=True)
class Sly(TokenWeighter):
    requires = frozenset({"student_entropy"})

    def __call__(self, batch):
        return batch.student_entropy + batch.teacher_entropy


@dataclass(frozen=True)
class SlyFilter(TrajectoryFilter):
    def __call__(self, batch):
        return batch.teacher_logprobs.sum(-1) < 0


def test_reading_an_undeclared_signal_raises_an_error_with_its_name():
    with pytest.raises(UndeclaredSignalError, match="Sly': reads 'teacher_entropy' without declaring it"):
        Method(token_weighter=Sly()).targets(scored_batch())


def test_parts_of_a_composition_see_only_their_own_signals():
    from fireopd.filters import TeacherLikelihoodFilter
    from fireopd.weighters import EntropyWeighter

    with pytest.raises(UndeclaredSignalError, match="Sly': reads 'teacher_entropy'"):
        Method(token_weighter=ProductOf([EntropyWeighter(), Sly()])).targets(scored_batch())
    with pytest.raises(UndeclaredSignalError, match="SlyFilter': reads 'teacher_logprobs'"):
        Method(AllOf([TeacherLikelihoodFilter(), SlyFilter()])).targets(scored_batch())


def test_an_unknown_signal_cannot_be_declared():
    class Typo(TokenWeighter):
        requires = frozenset({"teacher_entropi"})

        def __call__(self, batch):
            return torch.ones(batch.tokens.shape)

    message = r"Typo': requires 'teacher_entropi', .* Write 'teacher_entropy' in requires"
    with pytest.raises(ContractError, match=message):
        _ = Method(token_weighter=Typo()).requires


def test_weights_have_no_gradient():
    batch = scored_batch()
    leaf = batch.student_entropy.clone().requires_grad_()
    targets = Method(token_weighter=Answering(lambda b: leaf.exp())).targets(batch)
    assert not targets.weight.requires_grad


def test_a_contract_error_survives_pickling():
    error = UndeclaredSignalError.by(Sly(), "reads 'rewards'", "add it")
    copied = pickle.loads(pickle.dumps(error))
    assert isinstance(copied, UserError)
    assert str(copied) == str(error)
    assert "Add it; fireopd.testing.check_weighter tests the contract of Sly." in str(error)


def test_other_errors_of_a_strategy_are_not_wrapped():
    with pytest.raises(AttributeError, match="'ScoredBatch' object has no attribute 'entropy'") as raised:
        Method(token_weighter=Answering(lambda b: b.entropy)).targets(scored_batch())
    assert not isinstance(raised.value, UserError)

"""Conformance checks: valid strategies pass, and each violation is reported with a remedy."""

from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from helpers import wrong_strategies as wrong
from helpers.built_in_strategies import BUILT_IN, EXAMPLES

from fireopd.filters import (
    TeacherLikelihoodFilter,
    TrajectoryFilter,
)
from fireopd.objectives import Objective, ReverseKL
from fireopd.testing import check_filter, check_objective, check_weighter, example_batch, expected_gradient
from fireopd.testing.example_batches import VOCABULARY, edge_cases, with_garbage, with_padding
from fireopd.types.signals import PER_TRAJECTORY, SIGNALS
from fireopd.weighters import (
    EntropyWeighter,
    ProductOf,
    TokenWeighter,
)

CHECKS = {"fireopd.filters": check_filter, "fireopd.weighters": check_weighter, "fireopd.objectives": check_objective}


@pytest.mark.filterwarnings("error::fireopd.testing.ConformanceWarning")
@pytest.mark.parametrize("plugin", BUILT_IN, ids=lambda plugin: plugin.strategy.__name__)
def test_every_built_in_strategy_keeps_its_contract(plugin):
    name = plugin.strategy.__name__
    strategy = EXAMPLES[name] if name in EXAMPLES else plugin.strategy()
    for variant in (strategy, *switched(strategy)):
        CHECKS[plugin.group](variant)


def switched(strategy):
    """Yield the strategy with each other value of each switch among its settings."""
    types = get_type_hints(type(strategy))
    for setting in fields(strategy):
        values = (False, True) if types[setting.name] is bool else get_args(types[setting.name])
        if types[setting.name] is bool or get_origin(types[setting.name]) is Literal:
            for value in values:
                if value != getattr(strategy, setting.name):
                    yield replace(strategy, **{setting.name: value})


def test_all_values_of_switches_are_tested():
    assert set(switched(TeacherLikelihoodFilter(0.3))) == {TeacherLikelihoodFilter(0.3, per_teacher=True)}


def check(strategy):
    """Check a strategy of any kind."""
    kinds = {TrajectoryFilter: check_filter, TokenWeighter: check_weighter, Objective: check_objective}
    next(run for kind, run in kinds.items() if isinstance(strategy, kind))(strategy)


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        (wrong.ReadsPadding(), ["reads values off the response mask: with nan planted there, token", "reductions"]),
        (wrong.CountsColumns(), ["depends on padding: with 1 additional columns", "batch.lengths, not by the width"]),
        (wrong.LeaksGradient(), ["leaks a gradient", "Remove torch.enable_grad"]),
        (wrong.ClaimsByTrajectory(), ["sets by_trajectory = True", "other rows of the batch are missing", "Remove"]),
        (wrong.DependsOnOrder(), ["depends on the order of rows", "trajectory", "batch.groups and batch.teachers"]),
        (
            wrong.ReadsUndeclared(),
            [
                "reads 'teacher_entropy' without declaring",
                'requires = frozenset({"student_entropy", "teacher_entropy"})',
            ],
        ),
        (wrong.ReadsUndeclaredLate(), ["'teacher_entropy' without declaring", 'frozenset({"teacher_entropy"})']),
        (wrong.NegativeWeight(), ["returns the value -", "for token", "finite values >= 0"]),
        (
            wrong.NanOnOneToken(),
            ["fails on edge cases", "the value nan for token", "on one trajectory of one token"],
        ),
        (wrong.WrongShape(), ["returns shape [13] for a batch of shape [13, 12]: return [N, L], one value per token"]),
        (wrong.WrongType(), ["returns torch.float32: return torch.bool"]),
        (
            wrong.HiddenState(),
            ["after it has seen other batches", "it has a hidden state", "state_dict and load_state_dict"],
        ),
        (wrong.GlobalStatistics(), ["after other instances have seen other batches", "statistics over micro-batches"]),
        (wrong.UsesGlobalRandomness(), ["draws from torch's global generator", "batch.policy_version"]),
        (wrong.ModifiesItsInput(), ["modifies its batch (student_entropy)", ".clone() first"]),
        (wrong.NotPicklable(), ["cannot be pickled", "Define the class at the top of a module"]),
        (
            wrong.MutableDefault(),
            ["has the mutable default scale = tensor(1.)", "scale: Tensor = field(default_factory"],
        ),
        (wrong.NotFrozen(), ["is not a frozen dataclass", "Write @dataclass(frozen=True) above class NotFrozen"]),
        (
            wrong.ForgetsItsState(),
            ["returns a different answer after a resume", "restore all of it in load_state_dict"],
        ),
        (wrong.Misspelt(), ["requires 'teacher_entropi', which is not a signal. Did you mean 'teacher_entropy'?"]),
        (
            wrong.SettingIsChanged(),
            ["changes when it is written in a configuration", "power=2.0", "power=4.0"],
        ),
        (
            wrong.Overflows(),
            ["fails on edge cases", "the value inf for token", "on student log-probabilities of -100 nats", "clamp"],
        ),
        (wrong.HidesGroups(), ["reads rewards, which have an effect in groups", "Set needs_groups = True"]),
        (wrong.Crashes(), ["raises AttributeError on an ordinary batch (wrong_strategies.py, line", "'limit'"]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
@pytest.mark.filterwarnings("ignore:std")
def test_violations_are_found_and_reported(strategy, parts):
    wrong.PEAKS.clear()
    with pytest.raises(AssertionError) as found:
        check(strategy)
    text = " ".join(str(found.value).split())
    assert f"- {type(strategy).__name__} " in text
    for part in parts:
        assert part in text, text


def test_each_violation_is_reported_once_and_several_together():
    for strategy in (wrong.LeaksGradient(), wrong.ReadsUndeclared(), wrong.DependsOnOrder(), wrong.NotFrozen()):
        with pytest.raises(AssertionError, match="violates 1 rule of its contract"):
            check(strategy)

    @dataclass
    class Hopeless(TokenWeighter):
        """A class in a function cannot be pickled, either."""

        requires = frozenset({"student_entropy"})

        def __call__(self, batch):
            return -batch.student_entropy - batch.teacher_entropy.mean()

    with pytest.raises(AssertionError) as found:
        check(Hopeless())
    text = " ".join(str(found.value).split())
    for part in ("not a frozen dataclass", "'teacher_entropy' without declaring", "cannot be pickled", "the value -"):
        assert part in text
    assert "reads values off the response mask" in text, "checks continue with undeclared signals"


@dataclass(frozen=True)
class RunningMean(TokenWeighter):
    """A stateful strategy that keeps its contract."""

    requires = frozenset({"teacher_entropy"})
    seen: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, batch):
        now = torch.where(batch.response_mask, batch.teacher_entropy, 0.0).sum() / batch.lengths.sum().clamp(min=1)
        self.seen["mean"] = 0.5 * self.seen.get("mean", 1.0) + 0.5 * now.item()
        return (batch.teacher_entropy > self.seen["mean"]).float()

    def state_dict(self):
        return dict(self.seen)

    def load_state_dict(self, state_dict):
        self.seen.update(state_dict)


def test_saved_state_is_allowed_also_in_a_composition():
    check_weighter(RunningMean())
    check_weighter(ProductOf([RunningMean(), EntropyWeighter()]))
    with pytest.raises(AssertionError, match="hidden state"):
        check_weighter(ProductOf([wrong.HiddenState()]))


def test_a_class_or_another_kind_of_strategy_is_rejected():
    with pytest.raises(TypeError, match=r"is not a TokenWeighter: pass an instance, EntropyWeighter\(...\)"):
        check_weighter(EntropyWeighter)
    with pytest.raises(TypeError, match="is not a TrajectoryFilter"):
        check_filter(EntropyWeighter())


def test_example_batches_contain_every_signal_in_its_range():
    for seed in range(5):
        batch = example_batch(seed=seed)
        assert batch.signals.keys() == SIGNALS.keys()
        assert len(set(batch.teachers)) == 3
        assert not batch.finished.all()
        assert batch.lengths.min() >= 1
        for name, value in batch.signals.items():
            assert value.dtype == torch.float32
            if name not in PER_TRAJECTORY:
                assert (value[~batch.response_mask] == 0).all()
            low, high = (-6, 0) if "logprobs" in name else (0, torch.tensor(VOCABULARY).log())
            assert low <= value.min() < value.max() <= high, name
        for group in batch.groups.unique():
            rewards = batch.rewards[batch.groups == group]
            assert len(rewards) == 1 or set(rewards.tolist()) == {0.0, 1.0}


def test_garbage_and_padding_do_not_change_the_response():
    batch = example_batch()
    dirty, wide = with_garbage(batch, torch.nan), with_padding(batch, 4)
    for name, value in batch.signals.items():
        if name in PER_TRAJECTORY:
            assert torch.equal(dirty.signals[name], value)
            continue
        assert torch.equal(dirty.signals[name].isnan(), ~batch.response_mask)
        assert torch.equal(dirty.signals[name][batch.response_mask], value[batch.response_mask])
        assert torch.equal(wide.signals[name][wide.response_mask], value[batch.response_mask])
    assert torch.equal(dirty.tokens[batch.response_mask], batch.tokens[batch.response_mask])
    assert not torch.equal(dirty.tokens, batch.tokens)


def test_edge_cases_match_their_descriptions():
    found = edge_cases(0)
    assert found["one trajectory of one token"].response_mask.sum() == 1
    assert not found["no response token at all"].response_mask.any()
    assert (found["an empty response among others"].lengths == 0).sum() == 1
    equal = found["a teacher that equals the student"]
    assert torch.equal(equal.teacher_entropy, equal.student_entropy)
    assert torch.equal(ReverseKL().advantage(equal), torch.zeros_like(equal.student_logprobs))


def logits(seed):
    return torch.randn(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_expected_gradient_of_reverse_kl_is_that_of_the_divergence():
    student, teacher = logits(0), logits(1)
    leaf = student.clone().requires_grad_()
    log_p, log_q = leaf.log_softmax(-1), teacher.log_softmax(-1)
    (exact,) = torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), leaf)
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(expected_gradient(ReverseKL(), student, teacher), exact, rtol=1e-10, atol=1e-12)


def test_numbers_of_the_expected_gradient():
    """p = (.6, .3, .1), q = (.2, .7, .1): d KL / d logit_v = p_v (log p_v/q_v - KL), KL = .404978."""
    student, teacher = (torch.tensor(p, dtype=torch.float64).log() for p in ((0.6, 0.3, 0.1), (0.2, 0.7, 0.1)))
    expected = torch.tensor([0.416180, -0.375683, -0.040498], dtype=torch.float64)
    torch.testing.assert_close(expected_gradient(ReverseKL(), student, teacher), expected, atol=2e-6, rtol=0)


@dataclass(frozen=True)
class RewardAlone(Objective):
    requires = frozenset({"rewards"})

    def advantage(self, batch):
        return batch.rewards[:, None].expand(batch.tokens.shape)


def test_the_expected_gradient_takes_signals_that_distributions_do_not_determine():
    with pytest.raises(LookupError, match=r"pass rewards=..., float \[V\]"):
        expected_gradient(RewardAlone(), logits(0), logits(1))
    constant = expected_gradient(RewardAlone(), logits(0), logits(1), rewards=torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(constant, torch.zeros(7, dtype=torch.float64))
    rewards = torch.eye(7, dtype=torch.float64)[2]
    p = logits(0).softmax(-1)
    expected = -p[2] * (torch.eye(7, dtype=torch.float64)[2] - p)
    torch.testing.assert_close(expected_gradient(RewardAlone(), logits(0), logits(1), rewards=rewards), expected)

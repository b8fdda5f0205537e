"""Skipped steps: logged with their reason, and the end of the run after too many in a row."""

import math
import re
from dataclasses import dataclass

import pytest
import torch
from helpers.fakes import full_batch, scored_batch
from helpers.training import TEACHERS, fit, make_data, make_module, sgd
from lightning import Trainer

from fireopd.callbacks import Curves, RunCheckpoint, Trajectories
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.filters import KeepAll, LengthFilter, TeacherLikelihoodFilter
from fireopd.objectives import Objective
from fireopd.teachers import HFTeacher
from fireopd.training import skipped_steps
from fireopd.training.module import FiReOPDModule
from fireopd.types import TokenScores
from fireopd.types.signals import SIGNALS
from fireopd.types.targets import Targets
from fireopd.weighters import TokenWeighter


class Broken(HFTeacher):
    """A teacher that gives the first response token of its trajectories a value of its own."""

    value = math.nan

    def score(self, rollouts, *, entropy):
        scores = super().score(rollouts, entropy=entropy)
        first = rollouts.response_mask & (rollouts.response_mask.cumsum(-1) == 1)
        return TokenScores(torch.where(first, self.value, scores.logprobs), scores.entropy)


class Confused(Broken):
    """A teacher whose entropies are no numbers."""

    def score(self, rollouts, *, entropy):
        scores = HFTeacher.score(self, rollouts, entropy=entropy)
        return TokenScores(scores.logprobs, None if scores.entropy is None else scores.entropy * math.nan)


class Nothing(Objective):
    def advantage(self, batch):
        return torch.full(batch.tokens.shape, math.nan)


def untouched(module):
    fresh = HFEngine(8)
    fresh.setup("tiny/student", torch.device("cpu"))
    assert module.policy_version == 0
    for name, value in module.student_weights():
        assert torch.equal(value, fresh.model.state_dict()[name])


def broken(kind, value):
    teacher = kind("tiny/code")
    teacher.value = value
    return {"teachers": {"math": HFTeacher("tiny/math"), "code": teacher}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"trajectory_filter": LengthFilter(min_tokens=999)},
            "model.trajectory_filter: LengthFilter.*: 2 skipped steps in a row; the last one: the filter drop",
        ),
        ({"objective": Nothing()}, "model.objective: .*the advantage is nan for teacher"),
        (
            broken(Broken, math.nan),
            "model.teachers: 'code': 2 .*its teacher_logprobs is nan on (\\d+) tokens of \\1 tra",
        ),
        (broken(Confused, 0.0), "model.teachers: 'code': 2 skipped steps in a row.*its teacher_entropy is nan"),
        (
            broken(Broken, -math.inf) | {"trajectory_filter": KeepAll()},
            "model.objective: .*the advantage is -inf for teacher code \\(\\d+ trajectories\\)",
        ),
    ],
)
def test_skipped_steps_leave_everything_unchanged_and_stop_the_run(tmp_path, caplog, settings, message):
    schedulers = []

    def scheduler(optimizer):
        schedulers.append(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))
        return schedulers[-1]

    module = make_module(**settings, max_skipped_steps=2, scheduler=scheduler)
    data = make_data(24)
    with pytest.raises(UserError, match=message):
        fit(module, data, tmp_path)
    assert "Skipped step (1 in a row): model." in caplog.text
    assert schedulers[-1].last_epoch == 0
    untouched(module)


def test_what_a_teacher_holds_impossible_is_dropped_and_the_rest_is_used(tmp_path):
    settings = broken(Broken, -math.inf) | {"trajectory_filter": TeacherLikelihoodFilter(0.5)}
    module = make_module(**settings)
    notes, _ = fit(module, make_data(8), tmp_path)
    assert module.policy_version == 1
    assert notes.metrics[0]["fire/keep_ratio/code"] == 0
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_one_skipped_step_with_all_callbacks_active(tmp_path):
    class FirstTime(HFTeacher):
        calls = 0

        def score(self, rollouts, *, entropy):
            self.calls += 1
            scores = super().score(rollouts, entropy=entropy)
            return TokenScores(scores.logprobs * (math.nan if self.calls == 1 else 1.0), scores.entropy)

    module = make_module(teachers={**TEACHERS, "code": FirstTime("tiny/code")}, max_skipped_steps=2)
    data = make_data(24, num_validation=2, validation_responses=1)
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", enable_progress_bar=False, num_sanity_val_steps=0,
        enable_model_summary=False, callbacks=[Curves(1), Trajectories(1), RunCheckpoint()], log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, data)
    assert module.policy_version == 2
    assert module.skipped_steps == 0


def test_a_gradient_that_is_not_finite_is_not_stepped_on(tmp_path):
    class Poisoned(FiReOPDModule):
        def configure_optimizers(self):
            next(self.parameters()).register_hook(lambda gradient: gradient * torch.nan)
            return super().configure_optimizers()

    module = Poisoned(TEACHERS, optimizer=sgd, max_skipped_steps=2)
    with pytest.raises(UserError, match=r"loss or gradient was not finite \(loss .*norm nan\)"):
        fit(module, make_data(24), tmp_path)
    untouched(module)


def test_scores_off_the_response_mask_are_ignored():
    batch = scored_batch()
    for values in batch.signals.values():
        values[~batch.response_mask] = math.nan
    assert skipped_steps.invalid_signal(batch, frozenset(batch.signals)) is None


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("student_entropy", "model.student: 'student_entropy'"),
        ("teacher_entropy", "model.teachers: 'math'"),
        ("reverse_kl", "model.teachers: 'math'"),
        ("base_logprobs", "model.base: 'base_logprobs'"),
        ("rewards", "data.prompts.verifier: 'rewards'"),
    ],
)
def test_the_owner_of_an_invalid_signal_is_named_and_unused_signals_are_ignored(name, culprit):
    batch = full_batch()
    batch.signals[name][0] = math.nan
    assert str(skipped_steps.invalid_signal(batch, frozenset(batch.signals))).startswith(
        f"{culprit}: its {name} is nan"
    )
    assert skipped_steps.invalid_signal(batch, frozenset(batch.signals) - {name}) is None


@dataclass(frozen=True)
class Constant(TokenWeighter):
    """Gives every token the same weight."""

    value: float = 0.0

    def __call__(self, batch):
        return torch.full(batch.tokens.shape, self.value)


@pytest.mark.parametrize("single", [True, False])
def test_weights_that_are_zero_are_named_and_nothing_is_stepped_on(tmp_path, single):
    signals = frozenset() if single else frozenset({"student_logprobs"})
    settings = {"optimizer": torch.optim.AdamW, "extra_signals": signals, "max_skipped_steps": 2}
    module = FiReOPDModule(TEACHERS, token_weighter=Constant(0.0), **settings)
    with pytest.raises(
        UserError, match="model.token_weighter: Constant.*: 2 skipped steps in a row; .*every kept token the weight 0"
    ):
        fit(module, make_data(24), tmp_path)
    untouched(module)


STRATEGIES = {"trajectory_filter": KeepAll(), "token_weighter": Constant(1.0), "objective": Nothing()}


@pytest.mark.parametrize(
    ("weight", "advantage", "key", "numbers"),
    [
        (3e38, 2.0, "model.token_weighter", r"1 trajectories \(weights up to 3e\+38, advantages up to 2\)"),
        (1e25, 2.0, "model.token_weighter", "1 trajectories"),
        (2.0, 1e25, "model.objective", r"1 trajectories \(weights up to 2, advantages up to 1e\+25\)"),
        (1e10, 1.0, "model.optimizer", "lower the learning rate"),
    ],
)
def test_the_cause_of_an_overflow_of_a_single_row_is_named(weight, advantage, key, numbers):
    batch = full_batch()
    one, (row, token) = torch.ones(batch.tokens.shape), batch.response_mask.nonzero()[5]
    targets = Targets(batch.finished, batch.response_mask, one.clone(), one.clone(), one)
    targets.weight[row, token], targets.advantage[row, token] = weight, advantage
    steps = [{"train/loss": math.inf, "train/grad_norm": math.inf}]
    fault = skipped_steps.no_update(batch, targets, steps, STRATEGIES)
    assert fault.key == key
    assert re.search(numbers, f"{fault.problem} {fault.remedy}")
    assert skipped_steps.no_update(batch, targets, [{"train/loss": 1.0}], STRATEGIES) is None


def test_the_first_invalid_signal_is_named_with_its_first_place_and_its_trajectories():
    batch = full_batch()
    order = [name for name in SIGNALS if name in batch.signals]
    names = {order[0], order[-1]} | {"sampling_logprobs"}
    rows, tokens = batch.response_mask.nonzero().unbind(-1)
    some = [place for place in range(len(rows)) if rows[place] == rows[-1]][:2]
    for name in names:
        where = (rows[some], tokens[some]) if batch.signals[name].ndim == 2 else rows[some]
        batch.signals[name][where] = math.nan
    first = next(name for name in order if name in names)
    assert f"its {first} is nan" in skipped_steps.invalid_signal(batch, frozenset(order)).problem
    assert skipped_steps.invalid_signal(batch, frozenset({"sampling_logprobs"})).problem.endswith(
        "2 tokens of 1 trajectories"
    )


@pytest.mark.parametrize(
    ("student", "key"), [(-1.0, "data.engine"), (math.nan, "model.student"), (None, "data.engine")]
)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_the_engine_is_at_fault_unless_the_student_is_not_finite_either(student, key, value):
    batch = full_batch()
    place = tuple(batch.response_mask.nonzero()[3].tolist())
    batch.signals["sampling_logprobs"][place] = value
    if student is None:
        del batch.signals["student_logprobs"]
    else:
        batch.signals["student_logprobs"][place] = student
    assert skipped_steps.invalid_signal(batch, frozenset({"sampling_logprobs"})).key == key


def fault(steps, **changes):
    """Return the reason for no update with targets of 1 and some other values, [value, [places]] by field."""
    batch = full_batch()
    one, places = torch.ones(batch.tokens.shape), batch.response_mask.nonzero()
    targets = Targets(batch.finished, batch.response_mask, one.clone(), one.clone(), one.clone())
    for name, (value, chosen) in changes.items():
        getattr(targets, name)[tuple(places[chosen].T)] = value
    return batch, places, skipped_steps.no_update(batch, targets, steps, STRATEGIES)


INFINITE = {"train/loss": math.inf, "train/grad_norm": math.inf}


def test_advantages_that_are_not_finite_are_counted_by_trajectory():
    batch, places, found = fault([INFINITE], advantage=(math.nan, [-2, -1]))
    assert f"for teacher {batch.teachers[places[-1, 0]]} (1 trajectories)" in found.problem


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"advantage": (-1e25, [2])}, "model.objective"),
        ({"importance": (1e25, [2])}, "model.objective"),
        ({"weight": (1e25, [0]), "advantage": (-1e30, [0])}, "model.objective"),
        ({"weight": (1e20, [0]), "advantage": (2.0, [0])}, "model.token_weighter"),
    ],
)
def test_overflows_of_either_sign_and_of_the_importance_are_found(changes, key):
    assert fault([INFINITE], **changes)[2].key == key


def test_a_finite_update_is_enough_and_the_norm_that_is_no_number_is_shown():
    finite = {"train/loss": 1.0, "train/grad_norm": 1.0}
    assert fault([INFINITE, finite])[2] is None
    half = [{"train/loss": 1.0, "train/grad_norm": math.inf}, {"train/loss": 2.0, "train/grad_norm": math.nan}]
    assert "(loss 2.0, norm nan)" in fault(half)[2].problem
    assert fault([], weight=(0.0, slice(None)))[2].key == "model.trajectory_filter"


def test_the_run_ends_at_its_limit_of_skipped_steps():
    problem = UserError("model.objective", "X", "it is so", "change it")
    skipped_steps.report(problem, 1, 2)
    with pytest.raises(UserError, match="2 skipped steps in a row; the last one: it is so"):
        skipped_steps.report(problem, 2, 2)


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("teacher_logprobs", -math.inf, True),
        ("teacher_logprobs", math.inf, False),
        ("teacher_entropy", -math.inf, False),
    ],
)
def test_only_log_probabilities_of_scores_may_be_minus_infinity(name, value, valid):
    batch = full_batch()
    batch.signals[name][batch.response_mask] = value
    assert (skipped_steps.invalid_signal(batch, frozenset({name})) is None) == valid

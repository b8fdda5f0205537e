"""A resume is refused, before models are loaded, if it would be another run; with leave, what fits is restored."""

import copy
import logging
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from helpers.checkpoints import metadata
from helpers.training import make_data, make_module, sgd
from torch.optim.lr_scheduler import CosineAnnealingLR

from fireopd.errors import UserError
from fireopd.models.loading import load_causal_lm
from fireopd.plans import FixedPlan
from fireopd.training import resume_checks, run_state
from fireopd.training.resume_checks import check_resume
from fireopd.types import strategy_state
from fireopd.weighters import TokenWeighter


@dataclass
class Counting(TokenWeighter):
    """Weighter with a state."""

    calls: dict = field(default_factory=dict)

    def __call__(self, batch):
        return torch.ones(batch.tokens.shape)

    def state_dict(self):
        return {"calls": 1}

    def load_state_dict(self, state_dict):
        self.calls["restored"] = state_dict["calls"]


@pytest.fixture(scope="module")
def tensors():
    model = load_causal_lm("tiny/student", "model.student", "float32")
    return {f"student.model.{name}": value for name, value in model.state_dict().items()}


@pytest.fixture
def saved(tmp_path, tensors):
    """Return a function that writes the checkpoint of a module and returns its path."""

    def save(module, **own):
        state = {"settings": module.settings, "strategies": strategy_state.state_of(module.method.strategies)}
        optimizer = module.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
        entries = {"state_dict": tensors, "optimizer_states": [optimizer.state_dict()]}
        torch.save(metadata(**(state | own)) | entries, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return save


def module(settings=None, **arguments):
    made = make_module(**arguments)
    made.settings = settings or {}
    return made


def test_all_changes_are_named_at_once_and_need_leave(saved, caplog):
    settings = {"seed_everything": 1, "data": {"batch_size": 8}, "trainer": {"max_steps": 1}}
    path = saved(module(settings))
    now = module({"seed_everything": 2, "data": {"batch_size": 4}, "trainer": {"max_steps": 2}})
    with pytest.raises(UserError) as refused:
        check_resume(path, now)
    remedy = "Restore it, or add --resume_with_changes true to continue with the new value."
    assert str(refused.value).splitlines() == [
        f"seed_everything: '2': 1 in the checkpoint. {remedy}",
        f"data.batch_size: '4': 8 in the checkpoint. {remedy}",
    ]
    now.resume_with_changes = True
    with caplog.at_level(logging.INFO):
        check_resume(path, now)
    assert "Changed setting: trainer.max_steps: 1 in the checkpoint, 2 now" in caplog.text


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        ({}, {"token_weighter": Counting()}, "model.token_weighter: 'Counting': it has a state, and the checkpoint"),
        ({"token_weighter": Counting()}, {}, "model.token_weighter: 'EntropyWeighter': it has no state, and the che"),
        ({"optimizer": torch.optim.AdamW}, {"optimizer": sgd}, "model.optimizer: 'SGD': the checkpoint holds the st"),
    ],
)
def test_states_of_other_classes_are_named_without_settings_too(saved, then, now, message):
    path, other = saved(module(**then)), module(**now)
    with pytest.raises(UserError, match=message):
        check_resume(path, other)
    other.resume_with_changes = True
    check_resume(path, other)
    assert other.fresh_optimizer == ("optimizer" in now)


def test_a_state_that_a_strategy_cannot_take_is_named(saved):
    path = saved(module(token_weighter=Counting()), strategies={"token_weighter": {}})
    with pytest.raises(UserError, match=r"cannot take its state in the checkpoint \(KeyError: 'calls'\)"):
        check_resume(path, module(token_weighter=Counting()))


def test_a_student_of_another_shape_is_refused_with_leave_too(saved):
    path, other = saved(module()), module(student="tiny/small")
    with pytest.raises(UserError, match="model.student: 'tiny/small': tiny/student in the checkpoint"):
        check_resume(path, other)
    other.resume_with_changes = True
    with pytest.raises(UserError, match=r"its tensors are not those of the checkpoint \(model.embed_tokens.weight: "):
        check_resume(path, other)


def test_a_changed_rate_gives_the_schedule_of_a_run_that_always_had_it():
    """Ten steps with the old rate, resumed with the new one: the rates of a run with the new one from the start."""

    def made(lr, settings):
        own = module(
            settings, optimizer=lambda p: torch.optim.SGD(p, lr=lr), scheduler=lambda o: CosineAnnealingLR(o, T_max=30)
        )
        optimizer = own.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
        scheduler = own.make_scheduler(optimizer)
        own._trainer = SimpleNamespace(datamodule=SimpleNamespace(planning=SimpleNamespace(plan=FixedPlan())))
        own.optimizers, own.lr_schedulers = (lambda **_: optimizer), (lambda: scheduler)
        return own, optimizer, scheduler

    def steps(optimizer, scheduler, number):
        rates = []
        for _ in range(number):
            optimizer.step()
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    def settings(lr):
        return {"model": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": lr}}}}

    _, optimizer, scheduler = made(0.1, settings(0.1))
    steps(optimizer, scheduler, 10)
    _, *whole = made(0.5, settings(0.5))
    expected = steps(*whole, 20)[10:]
    resumed, own, schedule = made(0.5, settings(0.5))
    checkpoint = metadata(settings=settings(0.1), policy_version=10)
    assert [change.key for change in resume_checks.changed_settings(checkpoint, resumed)] == ["model.optimizer.lr"]
    run_state.restore(resumed, checkpoint)
    own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedule.load_state_dict(scheduler.state_dict())
    assert resumed.optimizer_changed
    resumed.on_train_start()
    assert steps(own, schedule, 10) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("field", ["tokens", "answer", "solution", "teacher"])
def test_prompts_with_another_content_under_the_same_settings_need_leave(saved, field):
    data, changed = make_data(), make_data()
    data.load()
    changed.load()
    last = changed.training_prompts[-1]
    changed.training_prompts[-1] = replace(last, **{field: (*last.tokens, 5) if field == "tokens" else "7"})
    made = module({"seed_everything": 1})
    path = saved(made, prompts=data.fingerprint)
    check_resume(path, made, data.fingerprint)
    with pytest.raises(UserError, match="their content is not that of the checkpoint. Restore the files"):
        check_resume(path, made, changed.fingerprint)
    made.resume_with_changes = True
    check_resume(path, made, changed.fingerprint)


def test_prompts_of_other_settings_are_named_once(saved):
    path = saved(module({"seed_everything": 1}), prompts="one")
    with pytest.raises(UserError) as refused:
        check_resume(path, module({"seed_everything": 2}), "another")
    assert [error.key for error in refused.value.each] == ["seed_everything"]


def test_prompts_are_not_compared_with_checkpoints_that_hold_none(saved):
    made = module({"seed_everything": 1})
    check_resume(saved(made), made, "one")

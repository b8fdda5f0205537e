"""Warnings of a collapse: they come when the courses of a run collapse, once, and not on healthy noise."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from helpers.paths import CONFIGS
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireopd.callbacks import HealthWatch
from fireopd.callbacks.failure_detectors import MetricHistory
from fireopd.filters import KeepAll, TeacherLikelihoodFilter
from fireopd.plans import AdaptiveLength, FixedPlan, ShortRollouts
from fireopd.plans.rollout import Planning

FILTER = TeacherLikelihoodFilter()
HEALTHY = {
    "rollout/finished": (0.95, 0.03),
    "entropy/student": (0.4, 0.05),
    "train/reverse_kl": (0.3, 0.05),
    "rollout/sampler_gap": (1e-4, 5e-5),
    "fire/weight_ess": (0.8, 0.05),
    "rollout/length": (40.0, 5.0),
    "fire/keep_ratio": (0.8, 0.01),
}
"""Mean and noise of each number in a run that is well."""


def watching(trajectory_filter=FILTER, plan=FixedPlan(), **settings):  # noqa: B008 - frozen
    watch = HealthWatch(**settings)
    data = SimpleNamespace(engine=SimpleNamespace(max_response_length=64), planning=Planning(plan))
    module = SimpleNamespace(data=data, method=SimpleNamespace(trajectory_filter=trajectory_filter))
    watch.on_train_start(None, module)
    return watch


def run(watch, steps, seed=0, **courses):
    """Let a run go by; a course gives the mean of a number at a step. Return the steps and warnings."""
    generator = torch.Generator().manual_seed(seed)
    said = []
    for step in range(steps):
        numbers = {tag: m + s * torch.randn((), generator=generator).item() for tag, (m, s) in HEALTHY.items()}
        for tag, course in courses.items():
            numbers[tag.replace("__", "/")] = course(step)
        said += [(step, warning) for warning in watch.update(numbers)]
    return said


def after(start, before, then):
    return lambda step: before if step < start else then


@pytest.mark.parametrize("seed", range(10))
def test_silent_on_healthy_noise(seed):
    assert run(watching(), 300, seed) == []


@pytest.mark.parametrize("plan", [ShortRollouts(64), AdaptiveLength()], ids=lambda plan: type(plan).__name__)
def test_responses_that_a_plan_cuts_are_no_problem(plan):
    courses = {"rollout__finished": after(50, 0.95, 0.1), "rollout__length": after(50, 30.0, 64.0)}
    assert run(watching(plan=plan), 100, **courses) == []
    assert len(run(watching(), 100, **courses)) == 2


def test_silent_while_a_student_learns():
    def learning(step):
        return 0.6 * 0.99**step + 0.05

    courses = {"train__reverse_kl": learning, "entropy__student": learning}
    assert run(watching(), 300, **courses, rollout__finished=lambda step: min(1.0, 0.6 + step / 200)) == []


@pytest.mark.parametrize(
    ("tag", "course", "words"),
    [
        ("rollout__finished", after(50, 0.95, 0.6), "fell from 0.95 to 0.7"),
        ("entropy__student", lambda step: 0.4 * 0.95**step, "entropy/student shrank from"),
        ("train__reverse_kl", lambda step: 0.5 * 0.97**step if step < 50 else 0.6, "train/reverse_kl rose from"),
        ("rollout__sampler_gap", lambda step: 1e-4 * 1.2**step, "rollout/sampler_gap rose from"),
        ("fire__weight_ess", after(60, 0.8, 0.01), "fire/weight_ess shrank from 0.8"),
        ("rollout__length", after(40, 30.0, 64.0), "rollout/length is"),
        (
            "fire__keep_ratio",
            after(30, 0.8, 1.0),
            "fire/keep_ratio was 1 for 10 steps: TeacherLikelihoodFilter keeps all",
        ),
        ("fire__keep_ratio", after(30, 0.8, 0.0), "fire/keep_ratio was 0 for 10 steps"),
    ],
)
def test_every_collapse_is_said_once_soon_after_it_begins(tag, course, words):
    ((step, warning),) = run(watching(), 120, **{tag: course})
    assert words in warning
    assert 10 <= step < 75


def test_a_symptom_that_comes_again_is_said_again_and_flicker_is_not():
    def relapse(step):
        return 0.4 if 30 <= step < 60 or 100 <= step < 130 else 0.95

    assert [step for step, _ in run(watching(), 200, rollout__finished=relapse)] == [33, 103]
    steps = [
        step
        for step, _ in run(watching(), 200, rollout__finished=lambda s: 0.95 if s < 20 else 0.745 + s // 3 % 2 / 100)
    ]
    assert len(steps) == 1


def test_several_times_next_to_nothing_is_nothing():
    courses = {"rollout__sampler_gap": after(30, 1e-6, 1e-3), "train__reverse_kl": after(30, 0.01, 0.04)}
    assert run(watching(), 80, **courses) == []


def test_a_warning_is_one_line_of_the_log_and_a_text_in_tensorboard(tmp_path, caplog):
    watch, logger = watching(window=2), TensorBoardLogger(tmp_path, name=None)
    trainer = SimpleNamespace(loggers=[logger], is_global_zero=True, callback_metrics={}, global_step=0)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        for trainer.global_step in range(1, 9):
            share = torch.tensor(0.9 if trainer.global_step < 5 else 0.1)
            trainer.callback_metrics = {"rollout/finished": share, "val/avg_at_k": torch.tensor(0.5)}
            watch.on_train_batch_end(trainer, None, None, None, trainer.global_step - 1)
    (line,) = caplog.messages
    assert line.startswith("Step 5: rollout/finished fell from 0.9 to 0.5: fewer responses finish")
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "version_0"))
    events.Reload()
    (event,) = events.Tensors("health/text_summary")
    assert event.step == 5
    assert event.tensor_proto.string_val[0].decode() in line


@pytest.mark.parametrize(
    "config", sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("paper/*.yaml")]), ids=lambda c: c.stem
)
def test_every_experiment_is_watched(config):
    assert "HealthWatch" in yaml.safe_load(config.read_text())["trainer"]["callbacks"]


def test_a_filter_that_keeps_everything_by_design_is_left_alone():
    assert run(watching(KeepAll()), 60, fire__keep_ratio=lambda step: 1.0) == []


def test_the_first_steps_prove_nothing_and_odd_batches_neither():
    assert run(watching(), 9, rollout__length=lambda step: 64.0) == []
    assert run(watching(), 100, rollout__finished=lambda step: 0.0 if step % 25 == 24 else 0.95) == []
    assert run(watching(), 60, train__reverse_kl=lambda step: float("nan") if step == 30 else 0.3) == []


def test_a_resumed_run_remembers_its_beginning_and_its_warnings():
    first = watching()
    assert len(run(first, 40, rollout__finished=after(20, 0.95, 0.6))) == 1
    saved = json.loads(json.dumps(first.state_dict()))
    again = watching()
    again.load_state_dict(saved)
    assert run(again, 40, rollout__finished=lambda step: 0.6) == [], "said before"
    other = watching()
    other.load_state_dict(json.loads(json.dumps(watched_healthy().state_dict())))
    ((step, warning),) = run(other, 40, rollout__finished=lambda step: 0.6)
    assert step < 10
    assert "fell from 0.95" in warning, "against the beginning of the first run"


def watched_healthy():
    watch = watching()
    run(watch, 20, rollout__finished=lambda step: 0.95)
    return watch


def test_a_course_against_a_list():
    values = torch.rand(40, generator=torch.Generator().manual_seed(3)).tolist()
    course = MetricHistory(7)
    for value in values:
        course.add(value)
    means = [sum(values[i : i + 7]) / 7 for i in range(34)]
    assert course.beginning == pytest.approx(means[0])
    assert course.now == pytest.approx(means[-1])
    assert course.lowest == pytest.approx(min(means))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("window", 1), ("finished_fall", 0.0), ("entropy_share", 1.0), ("kl_factor", 1.0), ("length_share", 1.5)],
)
def test_settings_have_a_range(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be .* got {value}"):
        HealthWatch(**{setting: value})

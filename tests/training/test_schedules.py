"""Training with schedules and phases: logged values, a phase that compares distributions, exact resume in between."""

import pytest
import torch
from helpers.training import Notes, fit, make_data, make_module, make_trainer

from fireopd.callbacks import RunCheckpoint
from fireopd.filters import ScheduledFilter, TeacherLikelihoodFilter
from fireopd.objectives import ObjectiveSequence, ReverseKL, ScheduledObjective, SkewKL

FILTER, OBJECTIVE = "schedule/trajectory_filter/drop_fraction", "schedule/objective/"


def changing():
    annealed = ScheduledFilter(TeacherLikelihoodFilter(), {"drop_fraction": {"from": 0.5, "to": 0.0, "steps": 2}})
    skewed = ScheduledObjective(SkewKL(), {"skew": {"from": 0.1, "to": 0.5, "steps": 4}})
    return make_module(trajectory_filter=annealed, objective=ObjectiveSequence([ReverseKL(), skewed], [2]))


def test_a_run_logs_its_schedule_and_resumes_exactly_within_it(tmp_path):
    whole, _ = fit(changing(), make_data(32), tmp_path / "whole")
    assert [step[FILTER] for step in whole.metrics] == [0.5, 0.25, 0.0, 0.0]
    assert [step[OBJECTIVE + "phase"] for step in whole.metrics] == [0, 0, 1, 1]
    assert [step.get(OBJECTIVE + "skew") for step in whole.metrics[2:]] == pytest.approx([0.3, 0.4])
    assert ["fire/coefficient_mean" in step for step in whole.metrics[2:]] == [True, True], "a direct objective"
    kept = [step["fire/keep_ratio"] for step in whole.metrics]
    assert kept[0] < kept[1] < kept[2] == kept[3] == 1.0
    saved = {"callbacks": [RunCheckpoint()], "enable_checkpointing": True}
    fit(changing(), make_data(32), tmp_path / "first", max_steps=3, **saved)
    (last,) = (tmp_path / "first").rglob("last.ckpt")
    rest = Notes()
    trainer = make_trainer(tmp_path / "rest", callbacks=[rest, RunCheckpoint()], enable_checkpointing=True)
    trainer.fit(changing(), make_data(32), ckpt_path=last, weights_only=True)
    assert len(rest.metrics) == 1
    assert {name: rest.metrics[0][name] for name in (FILTER, "train/loss")} == {
        name: whole.metrics[3][name] for name in (FILTER, "train/loss")
    }
    assert all(map(torch.equal, rest.weights[-1], whole.weights[-1]))

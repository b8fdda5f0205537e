"""Runs of a comparison: order, start and resume."""

import pytest

from fireopd.analysis.compare.planned_run import PlannedRun, plan_runs
from fireopd.analysis.compare.run_results import has_checkpoint
from fireopd.errors import UserError


def test_a_run_that_cannot_go_on_is_begun_anew_and_one_that_can_goes_on(tmp_path):
    run = PlannedRun("opd", 1, tmp_path / "seed_1", ("--config", "x"), {"a": 1})
    (run.folder / "version_0").mkdir(parents=True)
    run.prepare()
    assert not (run.folder / "version_0").exists()
    assert run.command()[3:] == ["fit", "--config", "x"]
    (run.folder / "version_0" / "checkpoints").mkdir(parents=True)
    (run.folder / "version_0" / "checkpoints" / "last.ckpt").touch()
    run.prepare()
    assert has_checkpoint(run.folder)
    assert run.command()[-2:] == ["--ckpt_path", "last"]


def test_the_plan_takes_all_methods_of_a_seed_before_the_next(tmp_path):
    arguments = {("", "opd"): ["--config", "opd.yaml"], ("", "fire"): ["--config", "fire.yaml"]}
    settings = {name: {"seed_everything": 1, "trainer.default_root_dir": "runs", "lr": 1} for name in arguments}
    runs = plan_runs(tmp_path, arguments, settings, [1, 2])
    assert [run.name for run in runs] == ["opd seed 1", "fire seed 1", "opd seed 2", "fire seed 2"]
    assert runs[3].arguments[:4] == ("--config", "fire.yaml", "--seed_everything", "2")
    assert runs[3].settings == {"lr": 1}
    runs[2].prepare()
    plan_runs(tmp_path, arguments, settings, [1, 2, 3])
    settings["", "opd"]["lr"] = 2
    with pytest.raises(UserError, match="opd seed 2 was started with lr 1, which is now 2"):
        plan_runs(tmp_path, arguments, settings, [1, 2])
    del settings["", "opd"]["lr"]
    with pytest.raises(UserError, match="lr 1, which is now null"):
        plan_runs(tmp_path, arguments, settings, [2])
    assert runs[0].folder == tmp_path / "runs" / "opd" / "seed_1"


def test_conditions_are_part_of_folder_and_name(tmp_path):
    places = {(bed, method): [] for bed in ("junk", "weak") for method in ("opd", "fire")}
    runs = plan_runs(tmp_path, places, {place: {} for place in places}, [1, 2])
    assert [run.name for run in runs[:3]] == ["junk opd seed 1", "junk fire seed 1", "weak opd seed 1"]
    assert runs[-1].folder == tmp_path / "runs" / "weak" / "fire" / "seed_2"

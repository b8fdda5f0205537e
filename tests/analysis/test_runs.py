"""Status of runs, from folders in every state."""

import pytest
import yaml

from fireopd.analysis.runs import find_runs
from fireopd.atomic_files import lock
from fireopd.cli.main import main

HEADER = "step,train/loss,val/code/avg_at_k,val/math/avg_at_k\n"
FIRE = {"trajectory_filter": {"class_path": "fireopd.filters.TeacherLikelihoodFilter"}, "objective": "ReverseKL"}


def make_run(root, number, rows, model=None, seed=1, **files):
    folder = root / f"version_{number}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed, "model": model or FIRE}))
    (folder / "metrics.csv").write_text(HEADER + "\n".join(rows) + "\n")
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text)
    return folder


@pytest.fixture
def root(tmp_path):
    whole = ["0,,0.25,0.5", "0,1.5,,", "1,1.25,,", "2,,0.75,0.5", "2,1.0,,", "3,,0.5,0.5"]
    make_run(tmp_path / "fire", 0, whole, summary="{}")
    make_run(tmp_path / "fire", 10, ["0,1.5,,"], seed=2)
    make_run(tmp_path / "fire", 9, [], {"token_weighter": "UniformWeighter"}, seed=3)
    (tmp_path / "fire" / "version_11").mkdir()  # the folder of another logger
    return tmp_path


def test_state_steps_and_accuracy_are_those_of_the_files(root):
    whole, empty, stopped = find_runs(root)
    assert (whole.state, whole.steps, whole.seed) == ("finished", 3, 1)
    assert (whole.accuracy, whole.best, whole.best_step) == (0.5, 0.625, 2)
    assert whole.method == "TeacherLikelihoodFilter"
    assert (empty.state, empty.steps, empty.best, empty.method) == ("not started", 0, None, "plain OPD")
    assert (stopped.state, stopped.steps, stopped.accuracy) == ("stopped", 1, None)
    assert stopped.folder.name == "version_10"


def test_a_run_that_holds_its_lock_is_running(root):
    with lock(root / "fire" / "version_10"):
        assert find_runs(root)[-1].state == "running"
    assert find_runs(root / "fire")[-1].state == "stopped"
    assert find_runs(root / "fire" / "version_10")[0].steps == 1, "the folder of a run itself"


def test_files_that_are_cut_short_give_missing_values(root):
    folder = root / "fire" / "version_0"
    (folder / "metrics.csv").write_bytes(b"step,train/loss\n0,1.0\n1,\xff")
    (folder / "config.yaml").write_text("model: [")
    status = find_runs(root)[0]
    assert (status.steps, status.seed, status.method) == (0, None, "")


def test_the_table(root, capsys):
    main(["runs", str(root)])
    said = capsys.readouterr().out
    assert "finished" in said
    assert "0.625" in said
    (root / "empty").mkdir()
    main(["runs", str(root / "empty")])
    assert "No runs in" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["runs", str(root / "none")])
    assert stop.value.code == 2
    assert "no such folder" in capsys.readouterr().err

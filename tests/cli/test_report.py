"""`fireopd report`: the page of a run from its files, whatever is missing, and errors."""

import json

import numpy as np
import pytest
import yaml
from helpers.fake_runs import write_curves
from helpers.fakes import full_batch

from fireopd.analysis.page import Page
from fireopd.analysis.report import run_tables
from fireopd.analysis.report.run_charts import short_names
from fireopd.analysis.report.run_files import RunFiles
from fireopd.analysis.view import TrajectoryList, View
from fireopd.cli.main import main
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.models.loading import load_tokenizer
from fireopd.weighters import EntropyWeighter

NASTY = "</script><img src=x>"
CURVES = {
    "train/loss": {0: 1.0, 1: 0.5},
    "val/sums/avg_at_k": {0: 0.25, 2: 0.75},
    "fire/keep_ratio": {0: 0.5, 1: float("nan")},
    "time/rollout": {0: 3.0, 1: 3.0},
    "time/update": {0: 1.0, 1: 1.0},
    "train/tokens_per_s": {0: 100.0, 1: 50.0},
}


def view_of_batch():
    batch, method = full_batch(), Method(TeacherLikelihoodFilter(0.5), EntropyWeighter())
    return View(batch, method.targets(batch), method.reasons(batch))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "runs" / "version_0"
    write_curves(folder, CURVES)
    method = {"trajectory_filter": {"class_path": "fireopd.filters.LengthFilter", "init_args": {"longest": 7}}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": method | {"student": NASTY}}))
    (folder / "warnings.jsonl").write_text(json.dumps({"step": 1, "warning": f"it fell {NASTY}"}) + "\n{")
    shown = TrajectoryList.of([view_of_batch()], load_tokenizer("tiny/student", "student"))
    (folder / "trajectories").mkdir()
    for step in (0, 25):
        Page("t", {}, [shown.section()]).write(folder / "trajectories" / f"step_{step:06d}.html")
    return folder


def test_the_page_of_a_run(folder, tmp_path, capsys):
    main(["report", str(folder.parent), "--out", str(tmp_path / "r.html")])
    assert "Open it in any browser" in capsys.readouterr().out
    html = (tmp_path / "r.html").read_text()
    for part in (
        "stopped, 2 steps",
        "LengthFilter(longest=7)",
        "600 response tokens in 8 s",
        "it fell &lt;/script&gt;",
    ):
        assert part in html
    assert html.count("<svg") == 4, "accuracy, keep ratio, seconds, tokens a second"
    assert "At the end: 0.5." in html, "the last finite value"
    assert html.count('role="img" aria-label=') == 4
    assert "<img" not in html
    assert html.count("<script") == html.count("</script") == 3, "tables, trajectories and their data"


def test_the_trajectories_of_written_pages_are_those_of_the_batch(folder):
    (row, *_) = TrajectoryList.of([view_of_batch()], load_tokenizer("tiny/student", "student")).rows
    shown = TrajectoryList.read(RunFiles.read(folder).pages)
    assert (len(shown.rows), shown.total) == (16, 16)
    for name, value in row.items():
        if name == "values":
            for quantity, expected in value.items():
                np.testing.assert_allclose(shown.rows[0]["values"][quantity], expected, rtol=1e-3)
        else:
            assert shown.rows[0][name] == value
    assert len(TrajectoryList.read(RunFiles.read(folder).pages, most_tokens=1).rows) == 2, "one of each page"


def test_tables_of_decisions_weights_and_costs(folder):
    run = RunFiles.read(folder)
    shown = TrajectoryList.read(run.pages)
    decisions = run_tables.decisions(shown)
    assert sum(row[2] for row in decisions.rows) == sum(row["kept"] for row in shown.rows)
    assert all("…" in row[1] for row in decisions.rows), "one criterion, whatever its numbers"
    shares = [row[3] for row in run_tables.tokens(shown).rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-5) or len(shares) == run_tables.SHOWN
    assert run_tables.costs(run).rows == [["rollout", 6.0, 0.75, 3.0], ["update", 2.0, 0.25, 1.0]]
    assert run_tables.results(run).rows == [["sums", 0.25, 0.75, None, None]]


def test_a_run_without_files_still_has_a_page(tmp_path):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "config.yaml").write_text("model: [")
    main(["report", str(tmp_path / "version_0"), "--out", str(tmp_path / "r.html")])
    assert "not started, 0 steps" in (tmp_path / "r.html").read_text()


def test_folders_without_one_run_are_refused(folder, tmp_path, capsys):
    (folder.parent / "version_1").mkdir()
    (folder.parent / "version_1" / "config.yaml").write_text("{}")
    (tmp_path / "empty").mkdir()
    for given, message in ((folder.parent, "it holds 2 runs. Give one of"), (tmp_path / "empty", "no run in this")):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(given), "--out", str(tmp_path / "r.html")])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_names_of_lines_are_the_parts_that_differ():
    assert short_names(["kl/a", "kl/b"]) == {"kl/a": "a", "kl/b": "b"}
    assert list(short_names(["x/keep", "x/keep/math"]).values()) == ["all", "math"]
    assert list(short_names(["position/quarter_1/kl", "position/quarter_2/kl"]).values()) == ["quarter 1", "quarter 2"]
    assert short_names(["train/loss"]) == {"train/loss": ""}

"""Callbacks: the text of trajectories, the layout of TensorBoard, the table, and where the folder lies."""

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.fakes import full_batch, scored_batch
from helpers.paths import ROOT
from rich.console import Console

import fireopd.callbacks
from fireopd.analysis.view import View
from fireopd.callbacks import Curves, RolloutRecorder, Trajectories
from fireopd.callbacks.curves import distributions, page
from fireopd.callbacks.summary import Summary, table
from fireopd.callbacks.trajectory_display import bar, text
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.models.loading import load_tokenizer
from fireopd.training.step_metrics import step_diagnostics
from fireopd.types.signals import SIGNALS
from fireopd.weighters import EntropyWeighter


def test_the_callbacks_lie_in_the_real_folder_on_top():
    assert Path(fireopd.callbacks.__file__).resolve().parent == ROOT / "callbacks"


def test_bars_grow_with_the_weight():
    assert [bar(w, 0.5, 2.5) for w in (0.5, 1.4, 2.5)] == ["▁", "▄", "█"]
    assert bar(1.0, 1.0, 1.0) == "▅", "weights that are all the same"


def view_of(batch, method):
    return View(batch, method.targets(batch), method.reasons(batch))


def test_a_text_shows_kept_and_dropped_trajectories_with_a_bar_for_each_character():
    batch = scored_batch(8, 20)
    batch = replace(batch, tokens=batch.tokens + 4)
    view = view_of(batch, Method(TeacherLikelihoodFilter(0.5), EntropyWeighter()))
    written = text(view, load_tokenizer("tiny/student", "model.student"), 4)
    assert written.count("**kept**") == 2
    assert written.count("**DROPPED**") == 2
    assert written.index(view.reasons[view.scores.argmax()]) < written.index(view.reasons[view.scores.argmin()])
    lines = written.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("    response ") and "(dropped)" not in lines[index + 1]:
            assert len(line) == len(lines[index + 1])
    assert written.count("weights  (dropped)") == 2


def test_one_trajectory_is_enough_for_a_text():
    written = text(view_of(scored_batch(1, 8), Method()), load_tokenizer("tiny/student", "x"), 6)
    assert written.count("**kept**") == 1
    assert "teacher's mean log-prob" in written, "a filter that judges by nothing"


def test_line_breaks_do_not_end_the_block():
    class Lines:
        def decode(self, tokens, **_):
            return "\n" * len(tokens)

    written = text(view_of(scored_batch(), Method()), Lines(), 3)
    assert all(line.startswith(("    ", "**", "Weights")) or not line for line in written.splitlines())
    assert "⏎" in written


def test_histograms_show_response_tokens_only():
    batch = scored_batch()
    shown = distributions(batch, Method(token_weighter=EntropyWeighter()).targets(batch))
    assert shown["tokens/weight"].numel() == shown["tokens/teacher_entropy"].numel() == int(batch.response_mask.sum())
    bare = replace(batch, signals={k: v for k, v in batch.signals.items() if "entropy" not in k})
    assert "tokens/teacher_entropy" not in distributions(bare, Method().targets(bare))


def test_no_histogram_shares_its_tag_with_a_scalar():
    batch = scored_batch()
    targets = Method(token_weighter=EntropyWeighter()).targets(batch)
    assert not distributions(batch, targets).keys() & step_diagnostics(batch, targets).keys()


def test_the_layout_names_the_curves_of_every_teacher_and_task():
    layout = str(page(["alice", "bob"], ["law"], SIGNALS.keys()))
    for tag in ("kl/alice", "fire/keep_ratio/bob", "time/teacher/bob", "val/law/avg_at_k"):
        assert f"^{tag}$" in layout


def charts(layout):
    return {name: [re.compile(tag) for tag in tags] for of in layout.values() for name, (_, tags) in of.items()}


def test_every_chart_shows_numbers_of_a_step_and_none_that_only_begins_alike():
    batch = full_batch()
    targets = Method(TeacherLikelihoodFilter(0.5), EntropyWeighter()).targets(batch)
    logged = {*step_diagnostics(batch, targets), "train/grad_norm", "train/tokens_per_s"}
    logged |= {f"time/{part}" for part in ("rollout", "teacher/math", "teacher/code", "student", "update", "sync")}
    for name, tags in charts(page(["math", "code"], [], SIGNALS.keys())).items():
        found = [[tag for tag in logged if pattern.match(tag)] for pattern in tags]
        assert all(len(tag) == 1 for tag in found), (name, found)


def test_what_a_run_does_not_compute_has_no_chart():
    full, bare = (charts(page(["math"], tasks, s)) for tasks, s in ((["sums"], SIGNALS.keys()), ([], set())))
    assert {name for name in full if name not in bare} == {
        "held-out accuracy (avg@k)",
        "reward of kept and dropped responses",
        "entropy, nats a token",
        "student's entropy by quarter of the response, nats",
    }


def test_the_table_gives_the_share_of_the_gap():
    rows = {"math": {"student_before": 0.4, "student_after": 0.7, "teacher": 1.0}}
    rows |= {"code": {"student_before": 0.4, "student_after": 0.7, "teacher": None}}
    console = Console(width=100, record=True, file=StringIO())
    console.print(table(rows, "title"))
    shown = console.export_text()
    assert "50%" in shown
    assert shown.count("0.700") == 2


@pytest.mark.parametrize("callback", [Curves, Trajectories, RolloutRecorder])
def test_settings_have_a_range(callback):
    with pytest.raises(ValueError, match="every_n_steps"):
        callback(every_n_steps=0)


def test_a_complete_run_that_is_resumed_has_the_seconds_of_its_training(monkeypatch):
    clock = iter((100.0, 130.0, 9000.0))
    monkeypatch.setattr("fireopd.callbacks.summary.time.perf_counter", lambda: next(clock))
    summary = Summary(teachers=False)
    summary.on_train_start(None, SimpleNamespace(data=SimpleNamespace(tasks=[])))
    state = summary.state_dict()
    assert state["seconds"] == 30
    again = Summary()
    again.load_state_dict(state)
    assert again.state_dict()["seconds"] == 30, "no training has started"

"""Callbacks: the text of trajectories, the layout of TensorBoard, the table, and where the folder lies."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from fakes import scored_batch
from rich.console import Console

import fireopd.callbacks
from fireopd.callbacks import Curves, RolloutRecorder, Trajectories
from fireopd.callbacks.curves import distributions, page
from fireopd.callbacks.summary import table
from fireopd.callbacks.trajectories import bar
from fireopd.diagnostics import step_diagnostics
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.methods import Method
from fireopd.models import load_tokenizer
from fireopd.weighters import EntropyWeighter


def test_the_callbacks_lie_in_the_real_folder_on_top():
    assert Path(fireopd.callbacks.__file__).resolve().parent == Path(__file__).parents[1] / "callbacks"


def test_bars_grow_with_the_weight():
    assert [bar(w, 0.5, 2.5) for w in (0.5, 1.4, 2.5)] == ["▁", "▄", "█"]
    assert bar(1.0, 1.0, 1.0) == "▅", "weights that are all the same"


def test_a_page_shows_kept_and_dropped_trajectories_with_a_bar_for_each_character():
    batch = scored_batch(8, 20)
    batch = replace(batch, tokens=batch.tokens + 4)
    targets = Method(TeacherLikelihoodFilter(0.5), EntropyWeighter()).targets(batch)
    text = Trajectories(number=4).page(batch, targets, load_tokenizer("tiny/student", "model.student"))
    assert text.count("**kept**") == 2
    assert text.count("**DROPPED**") == 2
    assert text.index("rank 1 of 8") < text.index("rank 8 of 8")
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("    response ") and "(dropped)" not in lines[index + 1]:
            assert len(line) == len(lines[index + 1])
    assert text.count("weights  (dropped)") == 2


def test_one_trajectory_is_enough_for_a_page():
    batch = scored_batch(1, 8)
    text = Trajectories(number=6).page(batch, Method().targets(batch), load_tokenizer("tiny/student", "x"))
    assert text.count("**kept**") == 1


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
    layout = str(page(["alice", "bob"], ["law"]))
    for tag in ("kl/alice", "fire/keep_ratio/bob", "time/teacher/bob", "val/law/avg_at_k"):
        assert tag in layout


def test_the_table_gives_the_share_of_the_gap():
    rows = {"math": {"student_before": 0.4, "student_after": 0.7, "teacher": 1.0}}
    rows |= {"code": {"student_before": 0.4, "student_after": 0.7, "teacher": None}}
    console = Console(width=100, record=True, file=StringIO())
    console.print(table(rows, "title"))
    text = console.export_text()
    assert "50%" in text
    assert text.count("0.700") == 2


@pytest.mark.parametrize("callback", [Curves, Trajectories, RolloutRecorder])
def test_settings_have_a_range(callback):
    with pytest.raises(ValueError, match="every_n_steps"):
        callback(every_n_steps=0)

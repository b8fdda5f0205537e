"""Prompts in verl's layout, from the script's files, and a run that routes by teacher column."""

import json
import runpy
import sys

import pyarrow.parquet
import pytest
from helpers.paths import ROOT

from fireopd.cli.main import main
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer
from fireopd.prompts import TinyPrompts, VerlColumns, VerlPrompts
from fireopd.training.recordings import read_scored

PUBLISHED = {
    "data_source": "math",
    "prompt": [{"content": "What is 1+1?", "role": "user"}],
    "ability": "math",
    "reward_model": {"ground_truth": "2", "style": "rule"},
    "extra_info": {"index": 0, "split": "train", "opd_teacher": "alice"},
}
"""Row with the columns of G-OPD's training data (arXiv 2602.12125)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder written by the script."""
    folder = tmp_path_factory.mktemp("verl")
    arguments, sys.argv = sys.argv, ["make_verl_data.py", str(folder), "--train", "16", "--val", "2", "--seed", "5"]
    try:
        runpy.run_path(str(ROOT / "scripts" / "make_verl_data.py"), run_name="__main__")
    finally:
        sys.argv = arguments
    return folder


def jsonl(tmp_path, *rows):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_published_row(tmp_path):
    (text,) = VerlPrompts(jsonl(tmp_path, PUBLISHED)).training(0)
    assert text.content == [{"role": "user", "content": "What is 1+1?"}]
    assert (text.answer, text.teacher, text.task) == ("2", "alice", "math")
    assert text.details == PUBLISHED["extra_info"]


def test_the_script_writes_the_embedded_tasks_with_the_columns_of_published_data(folder):
    table = pyarrow.parquet.read_table(folder / "train.parquet")
    assert table.column_names == list(PUBLISHED)
    row = table.to_pylist()[3]
    assert {k: set(v) for k, v in row.items() if isinstance(v, dict)} == {
        "reward_model": {"ground_truth", "style"},
        "extra_info": {"index", "opd_teacher", "split"},
    }
    source, expected = VerlPrompts(folder / "train.parquet", folder / "val.parquet"), TinyPrompts(num_training=16)
    read = [(t.content, t.answer, t.teacher, t.task) for t in source.training(0)]
    assert read == [(t.content, t.answer, t.teacher, t.task) for t in expected.training(5)]
    assert [t.task for t in source.validation()] == ["math", "math", "code", "code"]


def test_rows_without_a_teacher_have_that_of_the_source(folder, tmp_path):
    row = PUBLISHED | {"extra_info": {"index": 0}}
    with pytest.raises(UserError, match=r"train.jsonl:1.*names no teacher\. Add \"extra_info.opd_teacher\""):
        VerlPrompts(jsonl(tmp_path, row)).training(0)
    (text,) = VerlPrompts(jsonl(tmp_path, row), teacher="bob").training(0)
    assert text.teacher == "bob"
    texts = VerlPrompts(folder / "train.parquet", teacher="bob", columns=VerlColumns(teacher="")).training(0)
    assert {text.teacher for text in texts} == {"bob"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, r"train.jsonl:2.*the row has no prompt"),
        ({"prompt": []}, r"train.jsonl:2.*empty"),
        ({"prompt": [{"role": "user", "content": None}]}, r"train.jsonl:2.*neither text nor chat messages"),
        ({"reward_model": {"ground_truth": {"target": 3}}}, r"train.jsonl:2.*the answer is {'target': 3}"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        VerlPrompts(jsonl(tmp_path, PUBLISHED, PUBLISHED | change)).training(0)


def run(folder, runs, *more):
    configs = [f"--config={ROOT / 'configs' / name}" for name in ("multi_teacher.yaml", "data/verl.yaml")]
    places = [f"--data.prompts.{name}={folder / name}.parquet" for name in ("train", "val")]
    small = ["--data.batch_size=8", "--data.engine.max_response_length=8", f"--trainer.default_root_dir={runs}"]
    main(["fit", *configs, *places, *small, *more])


def test_a_run_routes_by_the_teacher_column(folder, tmp_path):
    run(folder, tmp_path, "--trainer.max_steps=2", "--trainer.callbacks=[{class_path: RolloutRecorder}]")
    (recorded,) = tmp_path.rglob("step_*.safetensors")
    batch = read_scored(recorded)
    tokenizer = load_tokenizer("tiny/student", "model.student")
    texts = tokenizer.batch_decode(batch.tokens, skip_special_tokens=True)
    assert set(batch.teachers) == {"math", "code"}
    assert ["math" if text[0].isdigit() else "code" for text in texts] == list(batch.teachers)


def test_an_unknown_teacher_is_refused_before_anything_is_loaded(folder, tmp_path, capsys, monkeypatch):
    for place in ("training.student", "teachers.huggingface", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path, "--data.prompts.columns.teacher=extra_info.split")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    place = f"{folder}/train.parquet[0]"
    count = "(and 19 other prompts name unknown teachers)"
    assert f"model.teachers: 'train': unknown teacher of the prompt {place} {count}" in said
    assert "Traceback" not in said

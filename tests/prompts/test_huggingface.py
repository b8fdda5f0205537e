"""Prompts from Hugging Face datasets in local folders."""

import json

import datasets
import pytest

from fireopd.errors import UserError
from fireopd.prompts import Columns, HFPrompts

ROWS = [{"question": f"q{n}", "gold": {"text": str(n)}, "more": "x" * 50} for n in range(30)]
COLUMNS = Columns(question="question", answer="gold.text")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """Keep what the library caches out of the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path):
    """A folder written by save_to_disk."""
    splits = {"train": ROWS[:20], "test": ROWS[20:]}
    datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(
        tmp_path / "saved"
    )
    return tmp_path / "saved"


@pytest.fixture
def files(tmp_path):
    """A folder of data files."""
    (tmp_path / "files").mkdir()
    for name, rows in {"train": ROWS[:20], "test": ROWS[20:]}.items():
        (tmp_path / "files" / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path / "files"


@pytest.mark.parametrize("kind", ["saved", "files"])
def test_splits_of_a_folder(kind, request):
    path = str(request.getfixturevalue(kind))
    source = HFPrompts(path, val="test", teacher="x", columns=COLUMNS)
    for texts, rows, split in ((source.training(0), ROWS[:20], "train"), (source.validation(), ROWS[20:], "test")):
        assert [t.content for t in texts] == [[{"role": "user", "content": row["question"]}] for row in rows]
        assert [t.answer for t in texts] == [row["gold"]["text"] for row in rows]
        assert [t.id for t in texts] == [f"{path}/{split}[{n}]" for n in range(len(rows))]


def test_one_split_that_was_saved_alone(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "alone")
    assert len(HFPrompts(str(tmp_path / "alone"), teacher="x", columns=COLUMNS).training(0)) == 30


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"train": "test"}, "train: 'test'"), ({"val": "test"}, "val: 'test'"), ({"val": "train"}, "val: 'train'")],
)
def test_a_dataset_that_was_saved_without_splits_has_none_to_choose(tmp_path, settings, key):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "alone")
    source = HFPrompts(str(tmp_path / "alone"), teacher="x", columns=COLUMNS, **settings)
    with pytest.raises(UserError, match=rf"data.prompts.{key}: the dataset was saved without splits.*held_out"):
        source.training(0), source.validation()


def test_a_part_of_a_split_may_be_for_validation(files):
    source = HFPrompts(str(files), "train[:80%]", "train[80%:]", teacher="x", columns=COLUMNS)
    assert [len(texts) for texts in (source.training(0), source.validation())] == [16, 4]
    assert not {t.answer for t in source.training(0)} & {t.answer for t in source.validation()}


def test_some_of_the_files_of_a_folder(files):
    (files / "notes.jsonl").write_text('{"other": 1}')
    texts = HFPrompts(str(files), data_files="t*.jsonl", teacher="x", columns=COLUMNS).training(0)
    assert sorted(int(t.answer) for t in texts) == list(range(30))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "dev"}, r"data.prompts.train: 'dev': unknown split\. The splits are train, test"),
        ({"columns": Columns(question="questions")}, r"no column questions; the columns are .*to question"),
        ({"columns": Columns()}, r"saved/train.*no column problem and no column prompt"),
    ],
)
def test_what_a_saved_folder_does_not_have(saved, settings, message):
    with pytest.raises(UserError, match=message):
        HFPrompts(str(saved), **({"teacher": "x", "columns": COLUMNS} | settings)).training(0)


def test_what_cannot_be_read(files, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for path, split in ((str(tmp_path / "empty"), "train"), (str(files), "dev"), ("unknown/dataset", "train")):
        with pytest.raises(UserError, match=rf"data.prompts.path: '{path}': split {split} cannot be read"):
            HFPrompts(path, split, teacher="x", columns=COLUMNS).training(0)

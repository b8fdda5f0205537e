"""Folder of a run: its number and its lock, and what happens on a full disk."""

import errno
from types import SimpleNamespace

import pytest

from fireopd.errors import UserError
from fireopd.training.run_folder import write_on_rank_zero, writing_run
from fireopd.training.run_layout import next_folder, run_folders


def trainer_of(folder, **attributes):
    return SimpleNamespace(log_dir=str(folder), default_root_dir=str(folder.parent), is_global_zero=True, **attributes)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_gets_the_next_number(tmp_path):
    assert next_folder(tmp_path / "new").name == "version_0"
    for name in ("version_2", "version_10", "version_x", "version_3.old"):
        (tmp_path / name).mkdir()
    (tmp_path / "version_11").touch()
    assert [path.name for path in run_folders(tmp_path)] == ["version_2", "version_10"]
    assert next_folder(tmp_path).name == "version_11"


def test_two_runs_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "version_0"
    second = writing_run(trainer_of(folder))
    with writing_run(trainer_of(folder)), pytest.raises(UserError, match="version_0': another run is writing into"):
        second.__enter__()
    (folder / "config.yaml").touch()
    third = writing_run(trainer_of(folder))
    with pytest.raises(UserError, match="version_0': it holds an earlier run"):
        third.__enter__()


@pytest.mark.parametrize("occupied", ["version_0", "."])
def test_a_place_that_is_occupied_is_one_sentence(tmp_path, occupied):
    root = tmp_path / "root"
    place = root / occupied
    place.parent.mkdir(exist_ok=True)
    place.touch()
    with pytest.raises(UserError, match="trainer.default_root_dir: .*version_0': cannot be written"):
        writing_run(trainer_of(root / "version_0")).__enter__()


def test_a_full_disk_ends_the_run_with_one_sentence(tmp_path):
    sentence = r"version_0': cannot be written \(No space left on device\). Free space"
    with pytest.raises(UserError, match=sentence), writing_run(trainer_of(tmp_path / "version_0")):
        full()
    with pytest.raises(ConnectionError), writing_run(trainer_of(tmp_path / "version_0")):
        raise ConnectionError("a server")


def test_an_error_of_rank_zero_reaches_all_processes(tmp_path, monkeypatch):
    gathered = []
    monkeypatch.setattr("fireopd.training.run_folder.collectives.raise_on_all_ranks", gathered.append)
    write_on_rank_zero(trainer_of(tmp_path / "version_0"), full)
    write_on_rank_zero(trainer_of(tmp_path / "version_0"), lambda folder: None)
    other = trainer_of(tmp_path / "version_0")
    other.is_global_zero = False
    write_on_rank_zero(other, full)
    assert [type(error) for error in gathered] == [UserError, type(None), type(None)]

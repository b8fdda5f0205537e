"""Files that are written as a whole or not at all, and the errors of places that cannot be written to."""

import errno
import os
import stat
from pathlib import Path

import pytest
from safetensors import SafetensorError

from fireopd.atomic_files import appending, follow_umask, replace, replacing, replacing_files, write_text, writing
from fireopd.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_and_folders_are_replaced(tmp_path):
    for kind in ("file", "folder"):
        old, new = tmp_path / f"old_{kind}", tmp_path / f"new_{kind}"
        for path in (old, new):
            if kind == "file":
                path.write_text(path.name)
            else:
                path.mkdir()
                (path / "shard").write_text(path.name)
        replace(new, old)
        assert (old if kind == "file" else old / "shard").read_text() == f"new_{kind}"
    assert names(tmp_path) == ["old_file", "old_folder"]


def test_a_folder_comes_back_if_its_replacement_cannot_be_moved(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "shard").write_text("whole")
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "missing", old)
    assert names(tmp_path) == ["old"]
    assert (old / "shard").read_text() == "whole"


def write_half(path, folder):
    with replacing(path) as partial:
        if folder:
            partial.mkdir()
        (partial / "part" if folder else partial).write_text("new")
        raise KeyboardInterrupt


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_the_old_version_and_nothing_else(tmp_path, folder):
    path = tmp_path / "result"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path, folder)
    assert names(tmp_path) == ["result"]
    assert path.read_text() == "old"


def test_the_remains_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".result.partial").mkdir()
    (tmp_path / ".result.partial" / "part").write_text("of an earlier process")
    with replacing(tmp_path / "result") as partial:
        partial.mkdir()
    assert names(tmp_path / "result") == []


def test_files_of_libraries_get_the_permissions_of_new_files(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    expected = stat.S_IMODE(ordinary.stat().st_mode)
    with replacing(tmp_path / "file") as partial:
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    os.close(os.open(tmp_path / "folder" / "inner" / "file", os.O_CREAT | os.O_WRONLY, 0o600))
    follow_umask(tmp_path / "folder")
    for path in (tmp_path / "file", tmp_path / "folder" / "inner" / "file"):
        assert stat.S_IMODE(path.stat().st_mode) == expected
    assert names(tmp_path) == ["file", "folder", "ordinary"]


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be written (No space left on device)"),
        (PermissionError(errno.EACCES, "Permission denied", "/out/x"), "(Permission denied: /out/x)"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), "cannot be written (Permission denied)"),
        (SafetensorError("I/O error: No space left on device (os error 28)\nmore"), "device (os error 28))"),
    ],
)
def test_the_error_names_the_setting_and_the_reason(error, problem):
    with pytest.raises(UserError, match="--out: '/out': ") as raised, writing("--out", Path("/out")):
        raise error
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def write_files(folder, *, fail):
    with replacing_files(folder) as partial:
        (partial / "plots").mkdir()
        for name in ("table.md", "plots/a.png"):
            (partial / name).write_text("new")
        if fail:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_files_of_a_report_are_replaced_together_or_not_at_all(tmp_path):
    (tmp_path / "table.md").write_text("old")
    (tmp_path / "runs").mkdir()
    with pytest.raises(OSError, match="No space"):
        write_files(tmp_path, fail=True)
    assert names(tmp_path) == ["runs", "table.md"]
    assert (tmp_path / "table.md").read_text() == "old"
    write_files(tmp_path, fail=False)
    assert names(tmp_path) == ["plots", "runs", "table.md"]
    assert [(tmp_path / name).read_text() for name in ("table.md", "plots/a.png")] == ["new", "new"]


def append(path, text, *, fail):
    with appending(path) as file:
        file.write(text)
        file.flush()
        if fail:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "records"
    with pytest.raises(OSError, match="No space"):
        append(path, b"half", fail=True)
    assert names(tmp_path) == []
    append(path, b"whole\n", fail=False)
    with pytest.raises(OSError, match="No space"):
        append(path, b"half", fail=True)
    assert path.read_bytes() == b"whole\n"

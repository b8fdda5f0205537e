"""Atomic file writes, errors of full and read-only disks, and locked folders."""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from fireopd.errors import UserError

__all__ = [
    "DISK_ERRORS",
    "LOCK",
    "appending",
    "check_folder",
    "follow_umask",
    "is_locked",
    "lock",
    "locked",
    "make_folder",
    "remove",
    "replace",
    "replacing",
    "replacing_files",
    "unwritable",
    "write_text",
    "writing",
]

LOCK = ".lock"
"""Lock file of a folder; the operating system releases the lock when the process ends."""
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Numbers of the errors that only occur when a file is written: no space, quota, file size, read-only."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, renamed to `path` when the block ends without an error.

    With an error, the temporary file or folder is removed and `path` stays as it was. Files get the permissions of new
    files, also those of libraries that restrict them to the owner.
    """
    partial = path.with_name(f".{path.name}.partial")
    remove(partial)
    try:
        yield partial
        follow_umask(partial)
        replace(partial, path)
    except BaseException:
        remove(partial)
        raise


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; when the block ends, its files replace those of the same names in `folder`.

    With an error, the temporary folder is removed, and `folder` has its earlier files.
    """
    partial = folder / ".partial"
    remove(partial)
    try:
        partial.mkdir(parents=True)
        yield partial
        follow_umask(partial)
        for file in sorted(path for path in partial.rglob("*") if path.is_file()):
            place = folder / file.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    finally:
        remove(partial)


@contextmanager
def appending(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to append to it; with an error, the file gets its former length, and a new one is removed."""
    length = path.stat().st_size if path.exists() else None
    try:
        with path.open("ab") as file:
            yield file
    except OSError:
        if length is None:
            path.unlink(missing_ok=True)
        elif path.exists():
            os.truncate(path, length)
        raise


def replace(new: Path, old: Path) -> None:
    """Replace a file or a folder, which may be missing, by another one of either kind.

    A file is replaced atomically. A folder is first moved aside, to `.<name>.replaced`, and moved back with an error.
    """
    aside = old.with_name(f".{old.name}.replaced")
    moved = old.is_dir() or (new.is_dir() and old.exists())
    if moved:
        remove(aside)
        old.rename(aside)
    try:
        new.replace(old)
    except OSError:
        if moved:
            aside.rename(old)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Give a file, or all files in a folder, the permissions of a new file. safetensors restricts them to the owner."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    if not files:
        return
    probe = path.with_name(f".{path.name}.new")
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in files:
        file.chmod(mode)


@contextmanager
def writing(key: str, path: Path) -> Iterator[None]:
    """Context that writes to a place; an error of the disk becomes one of the setting that names the place.

    Args:
        key: setting that names the place.
        path: its value.

    Raises:
        UserError: if a file cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise unwritable(key, path, error) from error


def unwritable(key: str, path: Path, error: Exception) -> UserError:
    """Return the error of a setting that names a place where a file cannot be written."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
    file = getattr(error, "filename", None)
    place = f": {file}" if file is not None and str(file) != str(path) else ""
    problem = f"cannot be written ({reason}{place})"
    return UserError(key, str(path), problem, "free space there, or give a place that can be written to")


def check_folder(path: Path) -> None:
    """Check that `--out` names a file in an existing folder.

    Raises:
        UserError: if `path` is a folder, or its parent folder does not exist.
    """
    if path.is_dir():
        raise UserError("--out", str(path), "it is a folder", "name a file in it")
    if not path.parent.is_dir():
        raise UserError("--out", str(path), "its folder does not exist", "create the folder, or choose another")


def make_folder(path: Path) -> None:
    """Create the folder named by `--out` unless it exists.

    Raises:
        UserError: if it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"no folder can be created there ({error.strerror})"
        raise UserError(
            "--out", str(path), problem, "name an existing folder, or a path where one can be created"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def lock(folder: Path) -> IO[str]:
    """Create a folder and return its open lock file; the folder stays locked until the file is closed.

    Raises:
        BlockingIOError: if another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


@contextmanager
def locked(key: str, folder: Path, problem: str, remedy: str) -> Iterator[IO[str]]:
    """Context that creates a folder and holds its lock; it yields the open lock file.

    Args:
        key: setting that names the folder.
        folder: its value.
        problem: problem if another process holds the lock.
        remedy: remedy for it.

    Raises:
        UserError: if another process holds the lock, or the folder cannot be written.
    """
    try:
        file = lock(folder)
    except BlockingIOError as error:
        raise UserError(key, str(folder), problem, remedy) from error
    except OSError as error:
        raise unwritable(key, folder, error) from error
    with file:
        yield file


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        return False
    return False

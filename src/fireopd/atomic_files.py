"""Atomic file writes and locked folders."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fireopd.errors import UserError

__all__ = ["LOCK", "check_folder", "lock", "make_folder", "replacing", "write_text"]

LOCK = ".lock"
"""Lock file of a folder; the operating system releases the lock when the process ends."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, renamed to `path` when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    os.replace(partial, path)


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

"""Writing files so that, whatever happens, there is a whole one or none: beside the place first, then into it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fireopd.errors import UserError

LOCK = ".lock"
"""The file that whoever writes into a folder keeps locked; the lock ends with the process, whatever ends that."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, which takes its place when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    os.replace(partial, path)


def check_folder(path: Path) -> None:
    """Check that a file named by `--out` has a folder to go into, and is none itself.

    Raises:
        UserError: if there is no such folder, or if it is one.
    """
    if path.is_dir():
        raise UserError("--out", str(path), "it is a folder", "name a file in it")
    if not path.parent.is_dir():
        raise UserError("--out", str(path), "its folder does not exist", "make the folder, or choose another")


def make_folder(path: Path) -> None:
    """Make the folder named by `--out`, if it is not there.

    Raises:
        UserError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"no folder can be made there ({error.strerror})"
        raise UserError("--out", str(path), problem, "name a folder, or where one can be made") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def lock(folder: Path) -> IO[str]:
    """Make a folder, and return its locked file: while that is open, nobody else can lock the folder.

    Raises:
        BlockingIOError: if somebody else has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file

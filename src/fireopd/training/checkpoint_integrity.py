"""Checksums of checkpoints.

A file is a zip archive with a CRC of each record. Its digest covers what the CRCs do not: the set of keys and values.
The metadata of a folder hold the digests of its other files.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fireopd.distributed import sharded_checkpoints
from fireopd.errors import import_extra

__all__ = [
    "DIGEST",
    "FILES",
    "METADATA",
    "RUN",
    "CorruptError",
    "check_types",
    "digest",
    "file_digests",
    "load_data",
    "verify",
]

METADATA = "meta.pt"
"""Lightning's file of everything but the shards in a sharded checkpoint."""
RUN = "fireopd"
"""Key of what the run itself stores: counters, state of strategies, settings."""
DIGEST = "digest"
"""Key of the digest of keys, plain values, and shapes and dtypes of tensors."""
FILES = "files"
"""Key of the digests of the other files of a folder, by name."""

TYPES: dict[tuple[str, ...], type] = {
    ("global_step",): int,
    ("epoch",): int,
    ("callbacks",): dict,
    ("lr_schedulers",): list,
    ("loops", "fit_loop", "epoch_progress", "current"): dict,
    ("loops", "fit_loop", "epoch_loop.state_dict", "_batches_that_stepped"): int,
    ("loops", "fit_loop", "epoch_loop.batch_progress", "total"): dict,
    ("loops", "fit_loop", "epoch_loop.batch_progress", "current"): dict,
    ("loops", "fit_loop", "epoch_loop.val_loop.batch_progress", "total"): dict,
    (RUN, "policy_version"): int,
    (RUN, "skipped_steps"): int,
    (RUN, "strategies"): dict,
    (RUN, "student"): str,
}
"""Types of the entries of a checkpoint, by their keys."""
TENSORS: dict[tuple[str, ...], type] = {("state_dict",): dict, ("optimizer_states",): list}
"""Types of the entries that the shards of a folder hold."""

QUANTIZED = {
    "torchao.optim.subclass_4bit.OptimState4bit",
    "torchao.optim.subclass_8bit.OptimState8bit",
    "torchao.optim.subclass_fp8.OptimStateFp8",
}
"""Types of the quantized tensors of torchao's optimizers. They hold tensors and plain values only."""


class CorruptError(ValueError):
    """Content of a checkpoint that differs from its checksum."""


def load_data(path: Path, *, mmap: bool = True) -> Any:
    """Load a file that holds tensors, also quantized ones, and plain values.

    Raises:
        UnpicklingError: if it holds anything else.
        UserError: if it holds the state of an optimizer of torchao, which is not installed.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError:
        unknown = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        if not unknown or not unknown <= QUANTIZED:
            raise
    import_extra("torchao.optim", "torchao", "model.optimizer", "the optimizer of the checkpoint")  # allows its types
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def check_types(checkpoint: Any, *, sharded: bool) -> None:
    """Check the entries that a resume reads.

    Raises:
        ValueError: if one is missing or has another type.
    """
    for keys, kind in (TYPES if sharded else TYPES | TENSORS).items():
        value = checkpoint
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise ValueError(f"{'.'.join(keys)} is missing")
            value = value[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{'.'.join(keys)} is not of type {kind.__name__}")


def digest(checkpoint: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of a checkpoint without its digest; of tensors, dtype and shape count."""
    state = hashlib.sha256()
    _update(state, {name: value for name, value in checkpoint.items() if name != DIGEST})
    return state.hexdigest()


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 digests of files by their names."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def verify(path: Path) -> None:
    """Read a checkpoint once, and compare it with its checksums.

    Checkpoints of `Trainer.save_checkpoint` and of early versions have no digest, only CRCs.

    Raises:
        CorruptError: if it differs from a checksum, or a file is missing or truncated.
        Exception: any error of zipfile, pickle and torch, if it cannot be read at all.
    """
    archive = path / METADATA if path.is_dir() else path
    _verify_archive(archive)
    saved = load_data(archive)
    if "run" in saved[RUN] and DIGEST not in saved:
        raise CorruptError("its digest is missing")
    if DIGEST in saved and saved[DIGEST] != digest(saved):
        raise CorruptError("its content differs from its digest")
    if not path.is_dir():
        return
    if FILES not in saved:
        sharded_checkpoints.check_records(path)
        return
    for name, expected in saved[FILES].items():
        file = path / Path(name).name
        if not file.is_file():
            raise CorruptError(f"{name} is missing")
        if file_digests([file]) != {name: expected}:
            raise CorruptError(f"{name} differs from its digest")


def _verify_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        wrong = archive.testzip()
    if wrong is not None:
        raise CorruptError(f"the record {wrong} differs from its checksum")


def _update(state: Any, value: Any) -> None:
    """Add a value to a digest, each part with its type and its length."""
    if isinstance(value, Mapping):
        state.update(f"dict {len(value)};".encode())
        for name, own in value.items():
            _update(state, name)
            _update(state, own)
    elif isinstance(value, list | tuple):
        state.update(f"{type(value).__name__} {len(value)};".encode())
        for own in value:
            _update(state, own)
    else:
        shown = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        state.update(f"{type(value).__name__} {len(shown)} {shown};".encode())

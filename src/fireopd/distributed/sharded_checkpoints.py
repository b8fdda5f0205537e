"""Safe loading of sharded checkpoint folders.

PyTorch unpickles the metadata of the folder and all values that are not tensors, which executes code that a malicious
checkpoint contains. Here the metadata is unpickled with an allowlist of types, and everything else is loaded as tensors
and plain values (`weights_only`).
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.distributed.checkpoint.planner import ReadItem

from fireopd import private_apis

__all__ = [
    "METADATA_FILE",
    "RestrictedUnpickler",
    "SafeReader",
    "TensorPlanner",
    "check_no_code",
    "check_records",
    "read_metadata",
    "read_state_dict",
]

METADATA_FILE = ".metadata"
"""Name of the metadata file in the folder."""
PUBLIC_GLOBALS = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
    },
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath"},
}
"""Public names that the metadata may contain, by module."""
ALLOWED_GLOBALS = {
    module: PUBLIC_GLOBALS.get(module, set()) | private_apis.PICKLED_GLOBALS.get(module, set())
    for module in PUBLIC_GLOBALS.keys() | private_apis.PICKLED_GLOBALS.keys()
}
"""All names that the metadata may contain, by module."""


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler for checkpoint metadata that rejects all other types."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return an allowed type.

        Raises:
            UnpicklingError: if the type is not allowed.
        """
        if global_name not in ALLOWED_GLOBALS.get(module_name, ()):
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed in checkpoint metadata")
        return super().find_class(module_name, global_name)


class SafeReader(FileSystemReader):
    """File system reader that loads the metadata with `RestrictedUnpickler`."""

    def read_metadata(self, *arguments: Any, **options: Any) -> Metadata:
        """Return the metadata of the folder."""
        metadata = read_metadata(Path(self.path))
        metadata.storage_meta.load_id = self.load_id  # type: ignore[union-attr]
        return metadata


class TensorPlanner(private_apis.EmptyStateDictLoadPlanner):
    """Load planner that accepts tensors only."""

    def load_bytes(self, read_item: ReadItem, value: IO[bytes]) -> None:
        """Reject values that are not tensors; the state of a model contains none."""
        raise pickle.UnpicklingError(f"{read_item.dest_index.fqn} is not a tensor")


def read_metadata(folder: Path) -> Metadata:
    """Return the metadata of a sharded checkpoint folder.

    Raises:
        UnpicklingError: if the file is not checkpoint metadata or contains other types.
        ValueError: if it names a file outside the folder, or values beyond the end of a file.
    """
    with (folder / METADATA_FILE).open("rb") as file:
        metadata = RestrictedUnpickler(file).load()
    if not isinstance(metadata, Metadata):
        raise pickle.UnpicklingError(f"{METADATA_FILE} does not contain checkpoint metadata")
    for index, storage in (metadata.storage_data or {}).items():
        name = storage.relative_path
        if Path(name).name != name:
            raise ValueError(f"{METADATA_FILE} names {name!r}, which is not a file of the folder")
        end = storage.offset + storage.length
        if not 0 <= storage.offset <= end <= (folder / name).stat().st_size:
            raise ValueError(f"{name} is truncated: {index.fqn} ends at byte {end}")
    return metadata


def check_records(folder: Path) -> None:
    """Read all tensors and values, and compare them with their CRCs.

    Raises:
        ValueError: if one of them differs from its CRC.
        Exception: any error of zipfile and pickle, if one of them cannot be read.
    """
    for index, storage in (read_metadata(folder).storage_data or {}).items():
        with (folder / storage.relative_path).open("rb") as file:
            file.seek(storage.offset)
            record = io.BytesIO(file.read(storage.length))
        with zipfile.ZipFile(record) as archive:
            if archive.testzip() is not None:
                raise ValueError(f"{index.fqn} in {storage.relative_path} differs from its checksum")


def check_no_code(folder: Path) -> None:
    """Load all values that PyTorch would unpickle on resume as plain data.

    Raises:
        UnpicklingError: if a value is not plain data.
    """
    metadata = read_metadata(folder)
    for index, storage in (metadata.storage_data or {}).items():
        if isinstance(metadata.state_dict_metadata[index.fqn], BytesStorageMetadata):
            with (folder / storage.relative_path).open("rb") as file:
                file.seek(storage.offset)
                torch.load(io.BytesIO(file.read(storage.length)), weights_only=True)


def read_state_dict(folder: Path) -> dict[str, Tensor]:
    """Return the unsharded tensors of the model, loaded in this process only. Optimizer states are skipped.

    Raises:
        UnpicklingError: if the checkpoint contains anything but tensors for the model.
    """
    names = {name for name in read_metadata(folder).state_dict_metadata if name.startswith("state_dict.")}
    tensors: dict[str, Any] = {}
    try:
        private_apis.load_state_dict(tensors, SafeReader(folder), planner=TensorPlanner(keys=names), no_dist=True)
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error
    return tensors["state_dict"]

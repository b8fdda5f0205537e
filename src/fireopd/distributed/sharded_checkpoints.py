"""Reading the folder of a sharded checkpoint as data.

PyTorch reads the list of what is in it, and whatever is no tensor, by unpickling, which would run code that somebody
put there. Here only the types of such a list are unpickled, and all else is loaded as tensors and plain values.
"""

import io
import pickle
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

LIST = ".metadata"
"""The list of what is in the folder."""
DATA = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath"},
}
"""The types that a list is made of, by module."""


class DataUnpickler(pickle.Unpickler):
    """Unpickles the types of a list and no others."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return a type of a list.

        Raises:
            UnpicklingError: if it is none.
        """
        if global_name not in DATA.get(module_name, ()):
            raise pickle.UnpicklingError(f"{module_name}.{global_name} does not belong into a checkpoint")
        return super().find_class(module_name, global_name)


class DataReader(FileSystemReader):
    """PyTorch's reader of such folders, with the list read as data."""

    def read_metadata(self, *arguments: Any, **options: Any) -> Metadata:
        """Return the list."""
        metadata = read_list(Path(self.path))
        metadata.storage_meta.load_id = self.load_id  # type: ignore[union-attr]
        return metadata


class DataPlanner(_EmptyStateDictLoadPlanner):
    """PyTorch's plan for reading what a folder holds, with everything loaded as data."""

    def load_bytes(self, read_item: ReadItem, value: IO[bytes]) -> None:
        """Refuse what is no tensor: a model's state has nothing else."""
        raise pickle.UnpicklingError(f"{read_item.dest_index.fqn} is no tensor")


def read_list(folder: Path) -> Metadata:
    """Return the list of what is in the folder of a sharded checkpoint."""
    with (folder / LIST).open("rb") as file:
        metadata = DataUnpickler(file).load()
    if not isinstance(metadata, Metadata):
        raise pickle.UnpicklingError(f"{LIST} holds no list of a checkpoint")
    return metadata


def check_no_code(folder: Path) -> None:
    """Read what PyTorch would unpickle when a run goes on, as data.

    Raises:
        UnpicklingError: if something in it is no data.
    """
    metadata = read_list(folder)
    for index, place in (metadata.storage_data or {}).items():
        if isinstance(metadata.state_dict_metadata[index.fqn], BytesStorageMetadata):
            with (folder / place.relative_path).open("rb") as file:
                file.seek(place.offset)
                torch.load(io.BytesIO(file.read(place.length)), weights_only=True)


def read_state_dict(folder: Path) -> dict[str, Tensor]:
    """Put the shards of the model together, in this process alone; optimizer states are left where they are."""
    names = {name for name in read_list(folder).state_dict_metadata if name.startswith("state_dict.")}
    tensors: dict[str, Any] = {}
    try:
        _load_state_dict(tensors, DataReader(folder), planner=DataPlanner(keys=names), no_dist=True)
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error
    return tensors["state_dict"]

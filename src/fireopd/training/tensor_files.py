"""Safetensors files with equal bytes for equal content."""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from fireopd.atomic_files import replacing

__all__ = ["write_tensors"]


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors of any device and metadata atomically. Raise `OSError` if the file cannot be written."""
    # Each is copied, since signals may share memory.
    own = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    content = save(own, metadata)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # which safetensors writes in random order
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)
    with replacing(path) as partial:
        partial.write_bytes(len(ordered).to_bytes(8, "little") + ordered + content[end:])

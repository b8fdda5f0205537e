"""Copy of a checkpoint in host memory, which training does not change while the checkpoint is written."""

import copy
from typing import Any

import torch
from torch import Tensor

from fireopd.private_apis import tree_leaves

__all__ = ["HostCopy"]


class HostCopy:
    """Copies of values with tensors on any device. The memory is kept for the next copy, and pinned if there is a GPU.

    The values of one copy are valid until the next one is made.
    """

    def __init__(self) -> None:
        """Create without memory."""
        self.buffers: list[Tensor] = []
        self.storages: dict[int, Tensor] = {}  # buffers by the address of the storage that was copied

    def of(self, value: Any) -> Any:
        """Return a deep copy with all tensors in host memory. Tensors that share memory share it in the copy."""
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        self.storages = {}
        memo: dict[int, Any] = {id(tensor): self._copied(tensor) for tensor in tensors}
        del self.buffers[len(self.storages) :]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copy.deepcopy(value, memo)

    def _copied(self, tensor: Tensor) -> Tensor:
        """Return the copy of a tensor; of a sharded or a quantized one, the copies of its parts."""
        if not hasattr(tensor, "__tensor_flatten__"):
            buffer = self._storage(tensor.detach())
            empty = torch.empty(0, dtype=tensor.dtype)
            return empty.set_(buffer.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
        kind: Any = type(tensor)
        names, context = tensor.__tensor_flatten__()
        own = {name: getattr(tensor, name) for name in names}
        parts = {name: self._copied(part) if isinstance(part, Tensor) else part for name, part in own.items()}
        copied: Tensor = kind.__tensor_unflatten__(parts, context, tensor.size(), tensor.stride())
        return copied

    def _storage(self, tensor: Tensor) -> Tensor:
        """Return the bytes of a tensor's storage in host memory, copied once."""
        storage = tensor.untyped_storage()
        if not storage.nbytes():
            return torch.empty(0, dtype=torch.uint8)
        if storage.data_ptr() not in self.storages:
            source = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            buffer = self._buffer(len(self.storages), len(source))
            self.storages[storage.data_ptr()] = buffer.copy_(source, non_blocking=True)
        return self.storages[storage.data_ptr()]

    def _buffer(self, number: int, size: int) -> Tensor:
        """Return the memory of the storage of that number, of a size in bytes."""
        while len(self.buffers) <= number or len(self.buffers[number]) != size:
            del self.buffers[number:]
            self.buffers.append(torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_available()))
        return self.buffers[number]

"""Bytes and floating-point operations of the operations of a program."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WRITE_ONLY = {"zeros_like", "new_full", "full", "fill_", "zero_", "copy_"}
"""Operations that do not read the values of their first argument."""
NOTHING = {"empty", "empty_like", "new_empty", "empty_strided"}
INDEXED = {"gather": 2, "scatter_add_": 3}
"""Operations that touch as many values as their index, by the values that are read or written for each."""


def size(tensor):
    return tensor.numel() * tensor.element_size()


class TrafficCounter(TorchDispatchMode):
    """Dispatch mode that counts what each operation reads and writes, each value once, and the products' operations."""

    def __init__(self):
        super().__init__()
        self.bytes = self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        # The sum of a product in float32 is implemented for GPUs only.
        result = kwargs["out"] if func is torch.ops.aten.addmm.dtype_out else func(*args, **kwargs)
        returns = func._schema.returns
        is_view = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        if name in NOTHING or is_view:
            return result
        read = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        if name in INDEXED:
            index = args[2]
            self.bytes += size(index) + INDEXED[name] * index.numel() * args[0].element_size()
            return result
        read = read[1:] if name in WRITE_ONLY else read
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.bytes += sum(map(size, read)) + sum(map(size, written))
        if name in ("mm", "addmm"):
            a, b = read[-2:]
            self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return result

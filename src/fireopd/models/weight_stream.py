"""Student weights as a stream of named tensors for a rollout engine."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fireopd.distributed import collectives
from fireopd.models.adapter import Adapter, MergedWeight

__all__ = ["WeightStream"]


class WeightStream:
    """Iterable over the named tensors that a checkpoint of the model contains, with Hugging Face names.

    Tied tensors occur once, under their first name. Sharded tensors are gathered one at a time, so each process holds
    at most one gathered tensor in addition to its shards; all processes must iterate in lockstep. The update of an
    adapter is added to one tensor at a time as well. Supports repeated iteration.
    """

    def __init__(self, model: nn.Module, adapter: Adapter | None = None) -> None:
        """Collect the tensors of a model, to which an adapter may be attached."""
        # state_dict() first: it makes FSDP2 reshard the parameters that are still gathered.
        saved = model.state_dict(keep_vars=True).keys()
        tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        own = {name: tensor.detach() for name, tensor in tensors.items() if name in saved}
        self.tensors: dict[str, Tensor | MergedWeight] = {**own} if adapter is None else adapter.merged(model, own)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield pairs of name and gathered tensor."""
        for name, tensor in self.tensors.items():
            yield name, tensor.gathered() if isinstance(tensor, MergedWeight) else collectives.full_tensor(tensor)

    def metadata(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Return name, dtype and unsharded shape of each tensor in iteration order, without gathering."""
        return [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()]

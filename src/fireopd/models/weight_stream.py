"""The student's weights on their way to a rollout engine."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fireopd.distributed import collectives


class WeightStream:
    """The tensors of a model that a checkpoint of it would hold, named as in the Hugging Face model.

    Tied tensors come once, under their first name. Sharded tensors are gathered one at a time, so that no more than one
    whole tensor is held beside the shards: every process has to iterate, in step. Can be iterated over again.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take the model. Its state comes first: asking for it makes FSDP2 shard again what it had gathered."""
        saved = model.state_dict(keep_vars=True).keys()
        tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.tensors = {name: tensor.detach() for name, tensor in tensors.items() if name in saved}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the whole tensors by name."""
        for name, tensor in self.tensors.items():
            yield name, collectives.full_tensor(tensor)

    def metadata(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Return name, type and whole shape of every tensor, in the order of the iteration; nothing is gathered."""
        return [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()]

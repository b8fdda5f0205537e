"""Places of the weights of a model: whole on a device, in CPU memory by layers, or sharded over the processes.

A placement loads a model, scores a probe with it, and moves its weights to their place. Only the first process reads a
model that is sharded. It sends the other processes their shards, so that no machine holds a copy for each process.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers.modeling_utils import PreTrainedModel

from fireopd import private_apis
from fireopd.distributed import collectives
from fireopd.distributed.fsdp import FSDP2Strategy, Sharding
from fireopd.models.model_size import without_memory
from fireopd.models.scorer import CausalScorer, check_scorer

__all__ = ["LayersOnHost", "Placement", "ShardedPlacement", "placement_for"]

Layout = dict[str, tuple[torch.Size, torch.dtype]]
"""Shapes and dtypes of parameters and buffers by name."""


class Placement:
    """Placement of a whole model on a device; base class of the others."""

    def __init__(self, device: torch.device) -> None:
        """Store the device to load to."""
        self.device = device

    def load(self, load: Callable[[torch.device], PreTrainedModel]) -> PreTrainedModel:
        """Return the model that a function loads to a device. Every process must call.

        Raises:
            Exception: any error of the function, on all processes.
        """
        return load(self.device)

    def check(self, key: str, name: str, scorer: CausalScorer) -> None:
        """Score a probe with a loaded model, see `check_scorer`. Every process must call."""
        own = scorer.kernels
        try:
            scorer.kernels = own if scorer.model.device.type == "cuda" else "torch"  # kernels of GPUs need one
            check_scorer(key, name, scorer)
        finally:
            scorer.kernels = own

    def __call__(self, scorer: CausalScorer) -> None:
        """Move the weights of a loaded model to their place. Every process must call."""


class LayersOnHost(Placement):
    """Placement of a frozen model in CPU memory: each layer is on the device during its forward pass only."""

    def __init__(self, device: torch.device) -> None:
        """Store the device that computes."""
        super().__init__(torch.device("cpu"))
        self.computes = device

    def __call__(self, scorer: CausalScorer) -> None:
        """Pin the weights in CPU memory, and copy those of each layer to the device before its forward pass."""
        for buffer in scorer.buffers():
            buffer.data = buffer.data.to(self.computes)
        names, placed = private_apis.no_split_modules(scorer.model), set[nn.Parameter]()
        for unit in (*(module for module in scorer.modules() if type(module).__name__ in names), scorer):
            own = [parameter for parameter in unit.parameters() if parameter not in placed]
            placed.update(own)
            self._copy_in_forward(unit, own)

    def _copy_in_forward(self, unit: nn.Module, parameters: list[nn.Parameter]) -> None:
        pin = torch.cuda.is_available()
        hosted = [parameter.data.pin_memory() if pin else parameter.data for parameter in parameters]

        def copy(*_: Any) -> None:
            for parameter, own in zip(parameters, hosted, strict=True):
                parameter.data = own.to(self.computes, non_blocking=True, copy=True)

        def release(*_: Any) -> None:
            for parameter, own in zip(parameters, hosted, strict=True):
                parameter.data = own

        release()
        unit.register_forward_pre_hook(copy)
        unit.register_forward_hook(release, always_call=True)


class ShardedPlacement(Placement):
    """Placement of a model whose parameters are sharded over the processes (FSDP2)."""

    def __init__(self, sharding: Sharding, mesh: DeviceMesh, *, frozen: bool) -> None:
        """Store precision and offloading, the mesh of all processes, and whether the model is frozen."""
        super().__init__(torch.device("cpu"))
        self.sharding, self.mesh, self.frozen = sharding, mesh, frozen

    def load(self, load: Callable[[torch.device], PreTrainedModel]) -> PreTrainedModel:
        """Load a model in the first process; the other processes get one whose values are not set."""
        model, error = None, None
        if collectives.rank() == 0:
            try:
                model = load(self.device)
            except Exception as problem:  # the other processes wait
                error = problem
        collectives.raise_on_all_ranks(error)
        config, layout = collectives.broadcast_object(None if model is None else (model.config, _layout(model)))
        return model or _unfilled(without_memory(config), layout) or load(self.device)

    def check(self, key: str, name: str, scorer: CausalScorer) -> None:
        """Score a probe in the first process."""
        error = None
        if collectives.rank() == 0:
            try:
                super().check(key, name, scorer)
            except Exception as problem:  # the other processes wait
                error = problem
        collectives.raise_on_all_ranks(error)

    def __call__(self, scorer: CausalScorer) -> None:
        """Shard the model, with the values of the first process."""
        self.sharding.shard(scorer, self.mesh, frozen=self.frozen, from_first=self.mesh.size() > 1)


def placement_for(strategy: Strategy, sharding: Sharding, *, frozen: bool) -> Placement:
    """Return the place of the weights of the student, or of a frozen model.

    Args:
        strategy: strategy of the trainer.
        sharding: precision and offloading.
        frozen: whether the model is a teacher or the base model.
    """
    if isinstance(strategy, FSDP2Strategy):
        return ShardedPlacement(sharding, strategy.device_mesh["data_parallel"], frozen=frozen)
    if not frozen:
        return Placement(torch.device("cpu"))  # the trainer moves it
    return (LayersOnHost if sharding.offload_teachers else Placement)(strategy.root_device)


def _layout(model: nn.Module) -> Layout:
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _unfilled(model: PreTrainedModel, layout: Layout) -> PreTrainedModel | None:
    """Replace the tensors of a model on the meta device by ones on the CPU, and return it.

    Their values are not set: the system provides no memory until they are written. Returns None for an architecture
    that also has other tensors, or whose tensors have other names if it is loaded.
    """
    others = (value for module in model.modules() for value in vars(module).values())
    if _layout(model).keys() != layout.keys() or any(isinstance(value, Tensor) for value in others):
        return None
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    made: dict[Tensor, Tensor] = {}
    for name, tensor in tensors.items():
        shape, dtype = layout[name]
        made[tensor] = torch.empty(shape, dtype=dtype)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            new = made[parameter]
            made[parameter] = new if isinstance(new, nn.Parameter) else nn.Parameter(new)
            setattr(module, name, made[parameter])  # one for all modules that share it
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, made[buffer])
    return model

"""Fully sharded data parallelism (FSDP2): each process holds a shard of all parameters, gradients, optimizer states."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import pad

from fireopd import private_apis

__all__ = ["FSDP2Strategy", "Sharding"]


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning strategy for sharded models with all processes in one data-parallel group."""

    def __init__(self, save_distributed_checkpoint: bool = True) -> None:
        """Store the settings.

        Args:
            save_distributed_checkpoint: save a checkpoint as a folder to which each process writes its shard; else as
                a single file.
        """
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=save_distributed_checkpoint)
        self.saves_shards = save_distributed_checkpoint
        """True if a checkpoint is a folder to which each process writes its shard."""
        self.restores_optimizers = True
        """False to leave the optimizer as it is when a checkpoint is loaded."""

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load the shards of this process into model and optimizer, and return the rest of the checkpoint."""
        optimizers = self.optimizers
        try:
            self.optimizers = optimizers if self.restores_optimizers else []
            return super().load_checkpoint(checkpoint_path, weights_only=weights_only)
        finally:
            self.optimizers = optimizers

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the model's shards on their device, where their writer takes them, or the whole model on rank 0."""
        if not self.saves_shards:
            return super().lightning_module_state_dict()
        assert self.model is not None
        return get_model_state_dict(self.model)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the shards of the states of an optimizer on their device, or the whole states on rank 0."""
        if not self.saves_shards:
            return super().optimizer_state(optimizer)
        assert self.model is not None
        return get_optimizer_state_dict(self.model, optimizer)

    def setup_environment(self) -> None:
        """Set up the device mesh with all processes of all nodes as data-parallel ranks."""
        private_apis.set_data_parallel_size(self, self.num_nodes * self.num_processes)
        super().setup_environment()

    def model_to_device(self) -> None:
        """Move the model to the device; shards that are kept in CPU memory stay there, `fully_shard` moved the rest."""
        assert self.lightning_module is not None
        shards = [p for p in self.lightning_module.parameters() if isinstance(p, DTensor)]
        if any(shard.device.type != self.root_device.type for shard in shards):
            private_apis.set_module_device(self.lightning_module, self.root_device)
        else:
            super().model_to_device()


@dataclass(frozen=True)
class Sharding:
    """Precision and offloading of sharded models. All but `offload_teachers` require FSDP2Strategy."""

    param_dtype: Literal["float32", "bfloat16"] | None = None
    """Dtype of gathered parameters and of computation; null for the dtype of the model, in which shards are stored."""
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the gradient reduction."""
    offload_teachers: bool = False
    """Store the teachers' weights in CPU memory and copy each layer to the GPU when it is needed, in any strategy."""
    offload_student: bool = False
    """Store the student's shards, their gradients and the optimizer states in CPU memory, where the optimizer steps."""

    def shard(self, scorer: nn.Module, mesh: DeviceMesh, *, frozen: bool, from_first: bool = False) -> None:
        """Shard a module in place: each decoder layer separately, the remainder (embeddings, head) with the module.

        Args:
            scorer: module with a Hugging Face model as its submodule `model`, such as a `CausalScorer`. Its forward
                applies the output head, so the head must belong to the module's own FSDP unit.
            mesh: one-dimensional mesh of the data-parallel processes.
            frozen: whether the module is a teacher.
            from_first: take all values from the first process. It sends the others their shards of one layer at a
                time, and releases the layer.
        """
        param_dtype = getattr(torch, self.param_dtype) if self.param_dtype else None
        precision = MixedPrecisionPolicy(param_dtype, getattr(torch, self.reduce_dtype))
        offloads = self.offload_teachers if frozen else self.offload_student
        offload = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if offloads else OffloadPolicy()
        model = scorer.get_submodule("model")
        layer_names = private_apis.no_split_modules(model)
        layers = [module for module in model.modules() if type(module).__name__ in layer_names]
        for unit in (*layers, scorer):
            whole = {name: p for name, p in unit.named_parameters() if not isinstance(p, DTensor)}
            # The student's embeddings and head stay gathered until its backward pass; a teacher has no backward pass.
            reshard = frozen if unit is scorer else None
            fully_shard(unit, mesh=mesh, reshard_after_forward=reshard, mp_policy=precision, offload_policy=offload)
            if from_first:
                shards = dict(unit.named_parameters())
                for name in list(whole):
                    _scatter(whole.pop(name).detach(), shards[name], mesh)
        if from_first:
            for buffer in scorer.buffers():
                dist.broadcast(_bytes(buffer), group=mesh.get_group(), group_src=0)


@torch.no_grad()
def _scatter(whole: Tensor, shard: Tensor, mesh: DeviceMesh) -> None:
    """Copy the slices of a parameter of the first process to the shards of all."""
    assert isinstance(shard, DTensor)
    own = shard.to_local()
    rows = -(-len(whole) // mesh.size())
    direct = len(own) == rows and own.device.type == mesh.device_type
    received = own if direct else whole.new_empty((rows, *whole.shape[1:]), device=mesh.device_type)
    slices = None
    if mesh.get_local_rank() == 0:
        padding = [0, 0] * (whole.ndim - 1) + [0, rows * mesh.size() - len(whole)]
        padded = pad(whole, padding) if padding[-1] else whole.contiguous()
        slices = [_bytes(part) for part in padded.to(mesh.device_type).split(rows)]
    dist.scatter(_bytes(received), slices, group=mesh.get_group(), group_src=0)
    if not direct:
        own.copy_(received[: len(own)])


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a contiguous tensor, of which any backend knows the type."""
    return tensor.view(-1).view(torch.uint8)

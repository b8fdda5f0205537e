"""Fully sharded data parallelism (FSDP2): each process holds a shard of all parameters, gradients, optimizer states."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

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

    def setup_environment(self) -> None:
        """Set up the device mesh with all processes of all nodes as data-parallel ranks."""
        private_apis.set_data_parallel_size(self, self.num_nodes * self.num_processes)
        super().setup_environment()


@dataclass(frozen=True)
class Sharding:
    """Precision and offloading of sharded models. Has no effect unless the trainer's strategy is FSDP2Strategy."""

    param_dtype: Literal["float32", "bfloat16"] | None = None
    """Dtype of gathered parameters and of computation; null for the dtype of the model, in which shards are stored."""
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the gradient reduction."""
    offload_teachers: bool = False
    """Store the teachers' shards in CPU memory and move each layer to the GPU when it is needed."""

    def shard(self, scorer: nn.Module, mesh: DeviceMesh, *, frozen: bool) -> None:
        """Shard a module in place: each decoder layer separately, the remainder (embeddings, head) with the module.

        Args:
            scorer: module with a Hugging Face model as its submodule `model`, such as a `CausalScorer`. Its forward
                applies the output head, so the head must belong to the module's own FSDP unit.
            mesh: one-dimensional mesh of the data-parallel processes.
            frozen: whether the module is a teacher.
        """
        param_dtype = getattr(torch, self.param_dtype) if self.param_dtype else None
        precision = MixedPrecisionPolicy(param_dtype, getattr(torch, self.reduce_dtype))
        offload = (
            CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
            if frozen and self.offload_teachers
            else OffloadPolicy()
        )
        model = scorer.get_submodule("model")
        layer_names = private_apis.no_split_modules(model)
        layers = [module for module in model.modules() if type(module).__name__ in layer_names]
        for layer in layers:
            fully_shard(layer, mesh=mesh, mp_policy=precision, offload_policy=offload)
        # The student's embeddings and head stay gathered until its backward pass; a teacher has no backward pass.
        fully_shard(scorer, mesh=mesh, reshard_after_forward=frozen, mp_policy=precision, offload_policy=offload)

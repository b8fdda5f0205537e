"""Sharding models over processes with FSDP2: each holds a slice of every parameter, gradient and optimizer state."""

from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from fireopd.models.scorer import CausalScorer


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's strategy for sharded models, with all processes of a run in one data-parallel group."""

    def __init__(self, save_distributed_checkpoint: bool = True) -> None:
        """Store the settings.

        Args:
            save_distributed_checkpoint: a checkpoint is a folder to which each process writes its slice; else one file.
        """
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=save_distributed_checkpoint)

    def setup_environment(self) -> None:
        """Take all processes of all machines for data parallelism."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


@dataclass(frozen=True)
class Sharding:
    """How models are sharded where the trainer's strategy is FSDP2Strategy; has no effect under another one."""

    param_dtype: Literal["float32", "bfloat16"] | None = None
    """Type in which parameters are gathered and computed with, null for that of the model, which the slices keep."""
    reduce_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which gradients are summed over processes."""
    offload_teachers: bool = False
    """Keep the teachers' slices in the memory of the CPU, and bring each layer to the GPU when it is needed."""

    def shard(self, scorer: CausalScorer, mesh: DeviceMesh, *, frozen: bool) -> None:
        """Shard a model in place: each decoder layer apart, and what is left (embeddings, head) with the scorer itself.

        The head is applied inside the scorer's forward, where it is gathered.
        """
        computed = getattr(torch, self.param_dtype) if self.param_dtype else None
        precision = MixedPrecisionPolicy(computed, getattr(torch, self.reduce_dtype))
        offload = (
            CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
            if frozen and self.offload_teachers
            else OffloadPolicy()
        )
        kinds = set(scorer.model._no_split_modules or ())
        layers = [module for module in scorer.model.modules() if type(module).__name__ in kinds]
        for module in layers:
            fully_shard(module, mesh=mesh, mp_policy=precision, offload_policy=offload)
        # The student's embeddings and head stay gathered until the backward pass; a teacher has none.
        fully_shard(scorer, mesh=mesh, reshard_after_forward=frozen, mp_policy=precision, offload_policy=offload)
        scorer.sharded = True

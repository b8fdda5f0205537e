"""Private APIs of Lightning, PyTorch, transformers and vLLM that this package depends on.

No other module accesses a private name of these libraries. Functions and aliases wrap the private APIs; `INHERITED`
lists the private members that subclasses override or read; `PICKLED_GLOBALS` lists the private names in the metadata of
sharded checkpoints. Each entry was written against Lightning 2.6.6, PyTorch 2.13.0, transformers 5.19.0 or vLLM 0.32,
and `tests/test_private_apis.py` fails when one of them disappears. Imports of the libraries are deferred to first use.
"""

import inspect
from importlib import import_module
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from lightning import LightningModule, Trainer
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as TrainingEpochLoop
    from lightning.pytorch.strategies import ModelParallelStrategy
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner as EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict as load_state_dict
    from torch.distributed.distributed_c10d import _get_default_store as get_default_store
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from transformers import PreTrainedConfig

__all__ = [
    "ALIASES",
    "INHERITED",
    "PICKLED_GLOBALS",
    "EmptyStateDictLoadPlanner",
    "FakeTensorMode",
    "Inherited",
    "TorchDispatchMode",
    "TrainingEpochLoop",
    "attention_implementation",
    "detach_vllm_finalizer",
    "dump_checkpoint",
    "get_default_store",
    "is_stateful",
    "load_state_dict",
    "missing_members",
    "no_split_modules",
    "raised_in_restore",
    "set_data_parallel_size",
    "set_module_device",
    "shapes_of_flash_attention",
    "skip_adapter",
    "supported_attention",
    "tree_leaves",
]

ALIASES = {
    # Base of the loop with a hook between a step and its validation; no public hook comes there. Lightning 2.6.6.
    "TrainingEpochLoop": ("lightning.pytorch.loops.training_epoch_loop", "_TrainingEpochLoop"),
    # Base of the planner that loads tensors only; public planners need a state dict of known shapes. PyTorch 2.13.0.
    "EmptyStateDictLoadPlanner": ("torch.distributed.checkpoint.default_planner", "_EmptyStateDictLoadPlanner"),
    # Fills an empty state dict from a checkpoint folder in one process; the public load() does not. PyTorch 2.13.0.
    "load_state_dict": ("torch.distributed.checkpoint.state_dict_loader", "_load_state_dict"),
    # Store of the default process group, for a barrier with a timeout outside of collectives. PyTorch 2.13.0.
    "get_default_store": ("torch.distributed.distributed_c10d", "_get_default_store"),
    # Records the operations of a strategy; the class is public, its module is not. PyTorch 2.13.0.
    "TorchDispatchMode": ("torch.utils._python_dispatch", "TorchDispatchMode"),
    # Tensors with shapes and without values, for measurements of memory. PyTorch 2.13.0.
    "FakeTensorMode": ("torch._subclasses.fake_tensor", "FakeTensorMode"),
    # Tensors in the operands and results of an operation. PyTorch 2.13.0.
    "tree_leaves": ("torch.utils._pytree", "tree_leaves"),
}
"""Module and private name by public alias."""

PICKLED_GLOBALS = {
    # Storage location of a shard. PyTorch 2.13.0.
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    # Enum of memory formats in the tensor properties. PyTorch 2.13.0.
    "torch.distributed.checkpoint.metadata": {"_MEM_FORMAT_ENCODING"},
    # Unpickles the layout of a tensor. PyTorch 2.13.0.
    "torch.serialization": {"_get_layout"},
}
"""Private names that occur in the pickled metadata of a sharded checkpoint, by module."""


class Inherited(NamedTuple):
    """Private member of a base class on which a subclass in this package depends."""

    base: str
    """Base class, `module:name`."""
    member: str
    """Method or attribute."""
    subclass: str
    """Subclass in this package, `module:name`."""
    reason: str
    """Use of the member, and the version in which it was read."""


_CLI = "lightning.pytorch.cli:LightningCLI"
_LOOP = "lightning.pytorch.loops.training_epoch_loop:_TrainingEpochLoop"
_BAR = "lightning.pytorch.callbacks:RichProgressBar"

INHERITED = (
    Inherited(
        _CLI,
        "_parse_ckpt_path",
        "fireopd.cli.training_cli:FitCLI",
        "Overridden: settings come from the configuration, never from a checkpoint. Lightning 2.6.6.",
    ),
    Inherited(
        _CLI,
        "_get",
        "fireopd.cli.training_cli:FitCLI",
        "Read: looks up a setting with or without a subcommand. Lightning 2.6.6.",
    ),
    Inherited(
        _LOOP,
        "_should_check_val_fx",
        "fireopd.training.step_loop:StepLoop",
        "Overridden: whether a validation follows the step. Lightning 2.6.6.",
    ),
    Inherited(
        _LOOP,
        "_skip_next_val",
        "fireopd.training.step_loop:StepLoop",
        "Read: a resumed run does not repeat a complete validation. Lightning 2.6.6.",
    ),
    Inherited(
        _BAR,
        "_reset_progress_bar_ids",
        "fireopd.callbacks.progress:Progress",
        "Extended: forgets the additional task when the bars are reset. Lightning 2.6.6.",
    ),
    Inherited(
        _BAR,
        "_get_train_description",
        "fireopd.callbacks.progress:Progress",
        "Overridden: a run of one epoch would be labelled 'Epoch 0/0'. Lightning 2.6.6.",
    ),
    Inherited(
        _BAR, "_add_task", "fireopd.callbacks.progress:Progress", "Called: adds a task to the bars. Lightning 2.6.6."
    ),
    Inherited(
        _BAR,
        "_progress_stopped",
        "fireopd.callbacks.progress:Progress",
        "Read: a stopped progress display must not be updated. Lightning 2.6.6.",
    ),
    Inherited(
        "lightning.pytorch.loggers:CSVLogger",
        "_experiment",
        "fireopd.training.csv_logger:SafeCSVLogger",
        "Set: the logger creates its writer on first use. Lightning 2.6.6.",
    ),
    Inherited(
        "lightning.pytorch.loggers.csv_logs:ExperimentWriter",
        "_rewrite_with_new_header",
        "fireopd.training.csv_logger:_Writer",
        "Overridden: rewrites the file atomically when a column is added. Lightning 2.6.6.",
    ),
)
"""Private members that subclasses override, call or read."""


def __getattr__(name: str) -> Any:
    """Import the target of an alias on first access."""
    if name not in ALIASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, private_name = ALIASES[name]
    return getattr(import_module(module), private_name)


def missing_members() -> list[str]:
    """Return the members of `INHERITED` that their base class no longer defines, as `module:class.member`."""
    missing = []
    for base, member, _, _ in INHERITED:
        module, _, name = base.partition(":")
        owner = getattr(import_module(module), name)
        assigned = any(
            f"self.{member}" in inspect.getsource(parent) for parent in owner.__mro__ if parent.__module__ != "builtins"
        )
        if not hasattr(owner, member) and not assigned:
            missing.append(f"{base}.{member}")
    return missing


def dump_checkpoint(trainer: "Trainer") -> dict[str, Any]:
    """Return the state of a run as `Trainer.save_checkpoint` writes it.

    `save_checkpoint` ends with a barrier at which the other ranks hang if one fails to write. Lightning 2.6.6.
    """
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def raised_in_restore(error: BaseException) -> bool:
    """Return whether an error was raised while the trainer restored a checkpoint, by its traceback. Lightning 2.6.6."""
    frames = {frame.name for frame in extract_tb(error.__traceback__)}
    return not frames.isdisjoint({"_restore_modules_and_callbacks", "restore_training_state"})


def set_data_parallel_size(strategy: "ModelParallelStrategy", size: int) -> None:
    """Set the number of data-parallel processes, whose default is the number of nodes.

    The constructor takes the size as well, but does not know the number of processes yet. Lightning 2.6.6.
    """
    strategy._data_parallel_size = size


def set_module_device(module: "LightningModule", device: "torch.device") -> None:
    """Set the device of a module, as `to` does, and leave its tensors where they are. Lightning 2.6.6."""
    module._device = device


def no_split_modules(model: "nn.Module") -> frozenset[str]:
    """Return the class names of a transformers model's decoder layers, the units of FSDP2. transformers 5.19.0."""
    names: Any = model._no_split_modules
    return frozenset(names or ())


def attention_implementation(config: "PreTrainedConfig") -> str | None:
    """Return the name of a model's attention implementation, for which no public getter exists. transformers 5.19.0."""
    return config._attn_implementation


def supported_attention(model: "nn.Module") -> list[str]:
    """Return the names of the attention implementations that an architecture supports. transformers 5.19.0."""
    own: Any = model
    if not own._can_set_attn_implementation():
        return [str(own.config._attn_implementation)]
    names = ["eager", *(["sdpa"] if own._supports_sdpa else [])]
    return names + (["flash_attention_2", "flash_attention_3"] if own._supports_flash_attn else [])


def shapes_of_flash_attention(query: Any, key: Any, value: Any, scale: float | None) -> Any:
    """Return the output of the flash kernel of GPUs for tensors without values. PyTorch 2.13.0."""
    kernel: Any = import_module("torch").ops.aten._scaled_dot_product_flash_attention
    return kernel(query, key, value, 0.0, True, False, scale=scale)[0]


def is_stateful(model: "nn.Module") -> bool:
    """Return whether a transformers model keeps a recurrent state besides keys and values. transformers 5.19.0."""
    return bool(model._is_stateful)


def detach_vllm_finalizer(llm: Any) -> None:
    """Keep vLLM from destroying all process groups, the trainer's included, when its engine is collected. vLLM 0.32."""
    llm.llm_engine.engine_core._finalizer.detach()


def skip_adapter(layer: "nn.Module", *, skip: bool) -> None:
    """Switch the update of a PEFT layer off or on for the forward pass, and leave its parameters as they are.

    The public `enable_adapters` also changes their `requires_grad`, which FSDP2 reads once. PEFT 0.21.2.
    """
    layer._disable_adapters = skip  # type: ignore[assignment]

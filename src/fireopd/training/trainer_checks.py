"""Checks of the trainer's settings. They need neither prompts nor models."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fireopd.distributed.fsdp import Sharding
from fireopd.errors import UserError
from fireopd.training.run_plan import ProcessPlan

__all__ = [
    "check_accumulation",
    "check_clipping",
    "check_folder",
    "check_precision",
    "check_sharding",
    "trainer_checks",
]

PURE_PRECISIONS = ("bf16-true", "16-true")
"""Precisions that convert the parameters and every input of the module."""


def trainer_checks(processes: ProcessPlan) -> Iterator[Callable[[], None]]:
    """Yield the checks of a trainer: each raises `UserError` for its problem."""
    yield partial(check_precision, processes.precision)
    yield partial(check_clipping, processes.gradient_clip_val)
    yield partial(check_accumulation, processes.accumulate_grad_batches)
    yield partial(check_folder, processes.folder)
    for name, value in (("max_steps", processes.max_steps), ("max_epochs", processes.max_epochs)):
        yield partial(check_length, name, value)
    yield partial(check_validation_interval, processes.val_check_interval)


def check_length(name: str, limit: int | None) -> None:
    """Raise `UserError` if a run with this limit has no step."""
    if limit == 0:
        raise UserError(
            f"trainer.{name}", 0, "the run would have no step", "give a positive number, or -1 for no limit"
        )


def check_validation_interval(interval: float | None) -> None:
    """Raise `UserError` if validations have no batch between them."""
    if interval == 0:
        remedy = "give batches or a share of them; trainer.limit_val_batches 0 for no validation"
        raise UserError("trainer.val_check_interval", 0, "validations would have no batch between them", remedy)


def check_precision(precision: str) -> None:
    """Raise `UserError` if the training step does not support the precision."""
    key = "trainer.precision"
    if precision == "16-mixed":
        remedy = "use bf16-mixed"
        raise UserError(key, precision, "gradients are clipped without a loss scale", remedy)
    if precision in PURE_PRECISIONS:
        problem = "parameters in half precision round small steps away, and batches of rollouts cannot be converted"
        remedy = "use bf16-mixed, or 32-true with FSDP2Strategy and model.sharding.param_dtype bfloat16"
        raise UserError(key, precision, problem, remedy)
    if precision not in ("32-true", "bf16-mixed"):
        problem = "the training step supports 32-true and bf16-mixed only"
        raise UserError(key, precision, problem, "use one of them; model.dtype sets the dtype of the parameters")


def check_sharding(sharding: Sharding, processes: ProcessPlan) -> None:
    """Raise `UserError` for a setting of sharded models in a run that does not shard them."""
    defaults = Sharding(offload_teachers=sharding.offload_teachers)  # any strategy can
    for name, value in vars(sharding).items():
        if not processes.sharded and value != getattr(defaults, name):
            problem = f"{processes.strategy} does not shard the models"
            remedy = "leave it out, or set trainer.strategy to FSDP2Strategy"
            raise UserError(f"model.sharding.{name}", value, problem, remedy)


def check_clipping(gradient_clip_val: float | None) -> None:
    """Raise `UserError` if the trainer clips gradients: the module does, by its own setting."""
    if gradient_clip_val:
        problem = "the module clips gradients itself"
        raise UserError("trainer.gradient_clip_val", gradient_clip_val, problem, "set model.gradient_clip instead")


def check_accumulation(accumulate_grad_batches: int) -> None:
    """Raise `UserError` if the trainer accumulates gradients: the module does, over the micro-batches of an update."""
    if accumulate_grad_batches != 1:
        problem = "the module accumulates gradients itself, over the micro-batches of an update"
        remedy = (
            "set data.batch_size and model.mini_batches for the size of an update, model.token_budget for its memory"
        )
        raise UserError("trainer.accumulate_grad_batches", accumulate_grad_batches, problem, remedy)


def check_folder(folder: str) -> None:
    """Raise `UserError` if the folder of the run, or the nearest folder above it that exists, cannot be written to."""
    if "://" in folder:
        return
    path = Path(folder).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        problem = f"{path} is a file"
    elif not os.access(path, os.W_OK | os.X_OK):
        problem = f"{path} is not writable"
    else:
        return
    raise UserError("trainer.default_root_dir", folder, problem, "give a folder that can be created or written to")

"""Checks of optimizer and scheduler on one small parameter."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from fireopd.errors import UserError
from fireopd.training.run_plan import RunPlan

__all__ = ["check_optimizer"]

MAX_STEPS = 10_000
"""Largest number of steps of a scheduler that are tried."""


def check_optimizer(plan: RunPlan) -> None:
    """Construct optimizer and scheduler, and take the steps of the run on a parameter of four zeros without gradient.

    Raises:
        UserError: if this raises an error, or if a learning rate or weight decay is not finite.
    """
    planned = plan.processes.device
    device = planned if planned.type != "cuda" or torch.cuda.is_available() else torch.device("cpu")
    optimizer = _construct("model.optimizer", plan.optimizer, device)
    if plan.scheduler is None:
        return
    key, name = "model.scheduler", _name(plan.scheduler)
    try:
        scheduler: Any = plan.scheduler(optimizer)
        optimizer.step()
        for _ in range(min(plan.optimizer_steps or 1, MAX_STEPS)):
            scheduler.step()
            _check_finite(key, name, optimizer)
    except UserError:
        raise
    except Exception as error:
        raise UserError(key, name, _reason(error), "fix its arguments") from error


def _construct(key: str, make: Callable[..., Any], device: torch.device) -> Any:
    name = _name(make)
    parameter = nn.Parameter(torch.zeros(2, 2, device=device))
    try:
        optimizer = make([parameter])
        parameter.grad = torch.zeros_like(parameter)
        with torch.compiler.set_stance("force_eager"):  # optimizers of torchao compile their step, for minutes
            optimizer.step()
    except Exception as error:
        raise UserError(key, name, _reason(error), "fix its arguments") from error
    _check_finite(key, name, optimizer)
    return optimizer


def _check_finite(key: str, name: str, optimizer: Any) -> None:
    for group in optimizer.param_groups:
        for setting, label in (("lr", "learning rate"), ("weight_decay", "weight decay")):
            if setting in group and not math.isfinite(group[setting]):
                raise UserError(key, name, f"its {label} is {float(group[setting])}", "give a finite number")


def _reason(error: Exception) -> str:
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split()).rstrip(".: ")


def _name(factory: Callable[..., Any]) -> str:
    """Return the name of the class that a factory constructs, as far as it is known."""
    parts = [factory.func, *factory.args] if isinstance(factory, partial) else [factory]
    known = next((part for part in parts if isinstance(part, type)), parts[0])
    return getattr(known, "__name__", repr(known))

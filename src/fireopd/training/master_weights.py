"""Check that optimizer steps change the student's parameters: half precision rounds small steps away.

A number in bfloat16 has neighbours at a distance of 2^-7 to 2^-8 of its size. So a step below 2^-9 of its size changes
nothing, and one of 2^-8 changes every number. The steps of AdamW are about as large as the learning rate: at 1e-6, the
weights above 5e-4 in bfloat16 stay as they are.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from fireopd.errors import UserError
from fireopd.models.loading import load_config, resolve
from fireopd.training.run_plan import RunPlan

__all__ = ["changed_fraction", "check_master_weights", "sampled_weights"]

SMALLEST_FRACTION = 0.99
"""Fraction of the parameters that a step of the learning rate must change."""
SAMPLE = 2**14
"""Number of weights of each tensor that are read."""


def check_master_weights(plan: RunPlan) -> None:
    """Raise `UserError` if the parameters of the student are in half precision and most steps would be rounded away.

    The largest learning rate of the optimizer counts as the step. An optimizer with stochastic rounding is accepted for
    bfloat16, and refused for other parameters, which it would not round.
    """
    dtype = torch.float32 if plan.adapter is not None else getattr(torch, plan.dtype)  # adapters are float32
    try:
        optimizer = plan.optimizer([nn.Parameter(torch.zeros(2, 2, dtype=dtype))])
    except Exception:  # `check_optimizer` reports it
        return
    rounds = getattr(optimizer, "bf16_stochastic_round", False)
    if rounds and dtype != torch.bfloat16:
        name = "those of the adapter" if plan.adapter is not None else "the student's parameters"
        problem = f"{name} are in {str(dtype).removeprefix('torch.')}, and only bfloat16 is rounded"
        raise UserError("model.optimizer.bf16_stochastic_round", True, problem, "leave it out")
    if rounds or dtype == torch.float32:
        return
    rate = max(float(group.get("lr", 0.0)) for group in optimizer.param_groups)
    fraction = changed_fraction(sampled_weights(plan.student), dtype, rate)
    if fraction < SMALLEST_FRACTION:
        problem = (
            f"a step of AdamW is about the learning rate, {rate:g}, and changes only {100 * fraction:.2g} % of the"
        )
        problem += f" student's parameters in {plan.dtype}: the others round back to their old value"
        remedy = "use float32 parameters and compute in bfloat16: trainer.precision bf16-mixed, or with FSDP2Strategy "
        raise UserError("model.dtype", plan.dtype, problem, f"{remedy}model.sharding.param_dtype bfloat16")


def changed_fraction(weights: Iterable[tuple[int, Tensor]], dtype: torch.dtype, step: float) -> float:
    """Return the fraction of weights that a step changes in either direction, after rounding to a dtype.

    Args:
        weights: number of elements and a sample, float, of each tensor.
        dtype: dtype of the parameters.
        step: size of the step.
    """
    changed = total = 0.0
    for size, sample in weights:
        stored = sample.to(dtype)
        up, down = ((stored.double() + sign * step).to(dtype) for sign in (1, -1))
        changed += size * ((up != stored) & (down != stored)).double().mean().item()
        total += size
    return changed / total if total else 1.0


def sampled_weights(name: str) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of elements and a sample, float32, of each tensor of a model.

    The tensors are those of the safetensors files of a local folder. Without these, there is one sample of the normal
    distribution with which the configuration initializes weights.
    """
    files = sorted(Path(resolve(name, "model.student")).glob("*.safetensors"))
    for file in files:
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                rows = tensors.get_slice(key)
                shape = rows.get_shape()
                size = torch.Size(shape).numel()
                count = max(1, SAMPLE * shape[0] // max(1, size)) if shape else 0
                start = (shape[0] - min(count, shape[0])) // 2 if shape else 0
                sample = rows[start : start + count] if shape else tensors.get_tensor(key)
                if sample.is_floating_point() and sample.numel():
                    yield size, sample.float()
    if not files:
        scale = getattr(load_config(name, "model.student").get_text_config(), "initializer_range", 0.02)
        yield 1, scale * torch.randn(SAMPLE, generator=torch.Generator().manual_seed(0))

"""Checks of the tensor operations of a strategy: random numbers without the policy version, and half precision.

Each check is a function of the subject that returns a paragraph for the strategy's author; empty if the check passes.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fireopd.private_apis import TorchDispatchMode
from fireopd.testing.subject import Subject

__all__ = ["computes_in_full_precision", "draws_anew_in_every_step"]

HALF = (torch.float16, torch.bfloat16)


class OperationRecorder(TorchDispatchMode):
    """Records random numbers and dtypes of the operations in its context."""

    def __init__(self) -> None:
        """Create without records."""
        super().__init__()
        self.drawn: list[Tensor] = []
        self.half: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record its result."""
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple | list) else [result]
        tensors = [value for value in results if isinstance(value, Tensor)]
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.drawn += [value.clone() for value in tensors]
        self.half |= {value.dtype for value in tensors if value.dtype in HALF}
        return result


def draws_anew_in_every_step(subject: Subject) -> str:
    """Check that random numbers of two policy versions differ."""
    drawn = []
    for version in (0, 1):
        batch = replace(subject.narrow, policy_version=version)
        with OperationRecorder() as recorder:
            subject.answer(batch)
        drawn.append(recorder.drawn)
    first, second = drawn
    if not first or len(first) != len(second) or not all(map(torch.equal, first, second)):
        return ""
    return (
        "draws the same random numbers in every step: its generator is seeded without batch.policy_version. Use "
        "fireopd.types.row_uniforms.row_uniforms, or seed a torch.Generator by a setting and batch.policy_version."
    )


def computes_in_full_precision(subject: Subject) -> str:
    """Check that no operation computes in half precision, where sums lose digits and overflow beyond 65504."""
    batch = subject.narrow
    with OperationRecorder() as recorder:
        subject.answer(batch)
    if not recorder.half:
        return ""
    dtype = sorted(map(str, recorder.half))[0]
    return f"computes in {dtype}, in which sums over a step lose digits or overflow. Compute in float32 or float64."

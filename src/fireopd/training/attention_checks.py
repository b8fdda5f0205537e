"""Checks of the attention implementations of student and teachers before any weights are loaded."""

from collections.abc import Callable, Iterator
from functools import partial

from fireopd.errors import UserError
from fireopd.models.attention import check_attention
from fireopd.teachers import HFTeacher
from fireopd.training.run_plan import RunPlan

__all__ = ["attention_checks"]


def attention_checks(plan: RunPlan) -> Iterator[Callable[[], None]]:
    """Yield the checks of student and frozen models."""
    key, own, device = "model.attn_implementation", plan.budgets.attention, plan.processes.device
    yield partial(check_attention, key, own, plan.student, device, _computed(plan, plan.dtype))
    for label, teacher in plan.frozen_models.items():
        if not isinstance(teacher, HFTeacher) or teacher.attn_implementation is None:
            continue
        key, asked = f"{label}.attn_implementation", teacher.attn_implementation
        if plan.shares_weights(teacher):
            yield partial(_check_shared, key, asked)
        else:
            yield partial(check_attention, key, asked, teacher.path, device, _computed(plan, teacher.dtype))


def _computed(plan: RunPlan, dtype: str) -> str:
    """Return the dtype of the matrix products of a model whose parameters have a dtype."""
    if plan.processes.sharded:
        return plan.sharding.param_dtype or dtype
    precisions = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
    return precisions.get(plan.processes.precision, dtype)


def _check_shared(key: str, asked: str) -> None:
    problem = "this model has the weights of the student, and computes with its attention"
    raise UserError(key, asked, problem, "leave it out, or set model.attn_implementation")

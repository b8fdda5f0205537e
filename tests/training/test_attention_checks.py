"""Checks of the attention implementations of a run."""

from types import SimpleNamespace

import pytest
import torch

from fireopd.distributed.fsdp import Sharding
from fireopd.errors import UserError
from fireopd.teachers import HFTeacher
from fireopd.training.attention_checks import attention_checks


def found(precision="32-true", sharded=False, param_dtype=None, shares=False, student=None, **teacher):
    """Return the messages of a planned run on a GPU."""
    plan = SimpleNamespace(
        student="tiny/student",
        dtype="float32",
        budgets=SimpleNamespace(attention=student),
        processes=SimpleNamespace(device=torch.device("cuda"), precision=precision, sharded=sharded),
        sharding=Sharding(param_dtype=param_dtype),
        frozen_models={"model.teachers.math": HFTeacher("tiny/math", **teacher)},
        shares_weights=lambda model: shares,
    )
    messages = []
    for check in attention_checks(plan):
        try:
            check()
        except UserError as error:
            messages.append(str(error))
    return messages


@pytest.mark.parametrize(
    ("settings", "computed"),
    [
        ({}, "float32"),
        ({"precision": "bf16-mixed"}, "half"),
        ({"precision": "16-mixed"}, "half"),
        ({"sharded": True}, "float32"),
        ({"sharded": True, "param_dtype": "bfloat16"}, "half"),
    ],
)
def test_flash_attention_of_the_student_is_checked_in_the_dtype_that_it_computes_in(settings, computed):
    [message] = found(student="flash_attention_2", **settings)
    assert message.startswith("model.attn_implementation: 'flash_attention_2': ")
    assert ("computes in float32" in message) == (computed == "float32")


def test_teachers_are_checked_by_their_own_dtype():
    [message] = found(attn_implementation="flash_attention_2", dtype="bfloat16")
    assert message.startswith("model.teachers.math.attn_implementation: ")
    assert "flash_attn is not installed" in message
    assert found() == found(attn_implementation="sdpa") == []


def test_a_teacher_with_the_students_weights_computes_with_its_attention():
    [message] = found(shares=True, attn_implementation="eager")
    assert "this model has the weights of the student, and computes with its attention" in message

"""Loading of the student."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fireopd.distributed.fsdp import Sharding
from fireopd.models.adapter import Adapter
from fireopd.models.attention import use_attention
from fireopd.models.compiled_layers import compile_layers
from fireopd.models.kernels import use_layer_kernels
from fireopd.models.loading import Dtype, disable_dropout, load_causal_lm
from fireopd.models.placement import Placement, placement_for
from fireopd.models.scorer import CausalScorer
from fireopd.models.student_versions import StudentVersions
from fireopd.training.run_plan import Budgets

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["load_student", "versions_of"]


def load_student(
    name: str, dtype: Dtype, budgets: Budgets, placement: Placement, adapter: Adapter | None = None
) -> CausalScorer:
    """Return the student in training mode, without dropout, before it is placed. Every process must call.

    Args:
        name: model folder, hub name or embedded model.
        dtype: type of the parameters.
        budgets: size of the head's chunks, its kernels, and gradient checkpointing.
        placement: place of its weights.
        adapter: added to the model, whose parameters are then frozen; None to train all parameters.

    Raises:
        UserError: if the model cannot be loaded, or if its scores differ from those of its own forward pass.
    """
    model = disable_dropout(placement.load(partial(load_causal_lm, name, "model.student", dtype))).train()
    if adapter is not None:
        adapter.attach(model)
    if budgets.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    student = CausalScorer(model, budgets.chunk_logits, budgets.kernels)
    placement.check("model.student", name, student)
    use_attention(model, "model.attn_implementation", budgets.attention)
    use_layer_kernels(model, budgets.kernels)
    if budgets.compiled:
        compile_layers(model)
    return student


def versions_of(module: "FiReOPDModule") -> StudentVersions:
    """Return the versions of a module's student, after it is placed, and attach the teachers that score with them."""

    def load(sharding: Sharding) -> CausalScorer:
        """Load the initial weights once more, frozen."""
        placement = placement_for(module.trainer.strategy, sharding, frozen=True)
        scorer = load_student(module.student_name, module.dtype_name, module.budgets, placement)
        scorer.requires_grad_(requires_grad=False)
        placement(scorer)
        return scorer

    # Averages change at each step, and checkpoints restore them, so they stay on the device.
    loads = partial(load, module.sharding), partial(load, replace(module.sharding, offload_teachers=False))
    versions = StudentVersions(module.student, module.adapter, *loads)
    for teacher in module.sharing:
        teacher.attach(versions)
    return versions

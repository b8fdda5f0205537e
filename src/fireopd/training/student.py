"""Loading of the student."""

from fireopd.models.adapter import Adapter
from fireopd.models.loading import Dtype, disable_dropout, load_causal_lm
from fireopd.models.scorer import CausalScorer, check_scorer
from fireopd.training.run_plan import Budgets

__all__ = ["load_student"]


def load_student(name: str, dtype: Dtype, budgets: Budgets, adapter: Adapter | None = None) -> CausalScorer:
    """Return the student in training mode, without dropout.

    Args:
        name: model folder, hub name or embedded model.
        dtype: type of the parameters.
        budgets: size of the head's chunks, its kernels, and gradient checkpointing.
        adapter: added to the model, whose parameters are then frozen; None to train all parameters.

    Raises:
        UserError: if the model cannot be loaded, or if its scores differ from those of its own forward pass.
    """
    model = disable_dropout(load_causal_lm(name, "model.student", dtype)).train()
    if adapter is not None:
        adapter.attach(model)
    if budgets.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    student = CausalScorer(model, budgets.chunk_logits, budgets.kernels)
    check_scorer("model.student", name, student)
    return student

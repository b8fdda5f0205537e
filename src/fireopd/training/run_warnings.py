"""Warnings about a run: settings that are allowed, and probably not intended."""

from fireopd.training.run_plan import DataPlan, RunPlan

__all__ = ["data_warnings", "run_warnings"]


def run_warnings(plan: RunPlan) -> list[str]:
    """Return the warnings about a run, one sentence each."""
    return data_warnings(plan.data) + [text for text in [_unsaved(plan)] if text is not None]


def data_warnings(data: DataPlan) -> list[str]:
    """Return the warnings about prompts."""
    return [text for text in (_repeated(data), _unanswered(data)) if text is not None]


def _repeated(data: DataPlan) -> str | None:
    """Return the number of training prompts in the validation set; no error, since small data sets repeat prompts."""
    held_out = {str(prompt.content) for prompt in data.validation_prompts}
    repeated = sum(str(prompt.content) in held_out for prompt in data.training_prompts)
    total = len(data.training_prompts)
    return f"{repeated} of {total} training prompts also occur in the validation set" if repeated else None


def _unanswered(data: DataPlan) -> str | None:
    """Return the number of validation prompts with neither an answer nor details, whose reward is always 0."""
    own = data.validation_prompts
    without = [prompt for prompt in own if not prompt.answer and not prompt.details]
    if not without:
        return None
    problem = "have no answer, so every response to them is graded as wrong"
    return f"{len(without)} of {len(own)} validation prompts {problem}: {without[0].id} ..."


def _unsaved(plan: RunPlan) -> str | None:
    """Return that no checkpoint is written, as with an overlay that replaces the list of callbacks."""
    if plan.processes.checkpoints:
        return None
    remedy = "add RunCheckpoint to trainer.callbacks; a list in a later file replaces the list of an earlier one"
    return f"no RunCheckpoint is among the callbacks, so the run cannot be resumed or exported: {remedy}"

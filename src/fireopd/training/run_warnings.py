"""Warnings about a run: settings that are allowed, and probably not intended."""

from collections.abc import Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.prompts.tokenization import unknown_token
from fireopd.teachers import StudentTeacher
from fireopd.training.planned_rows import planned_rows
from fireopd.training.run_plan import DataPlan, RunPlan
from fireopd.types import Prompt

__all__ = ["data_warnings", "run_warnings"]


def run_warnings(plan: RunPlan) -> list[str]:
    """Return the warnings about a run, one sentence each."""
    return data_warnings(plan.data) + [
        text for text in (_unused(plan), _itself(plan), _unsaved(plan), _unreadable(plan)) if text is not None
    ]


def data_warnings(data: DataPlan) -> list[str]:
    """Return the warnings about prompts."""
    found = [_repeated(data), _unanswered(data), _closed(data.prompts)]
    for kind, prompts in (("training", data.training_prompts), ("validation", data.validation_prompts)):
        found.append(_unknown(kind, prompts, data.tokenizer))
    return [text for text in found if text is not None]


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


def _closed(prompts: Sequence[Prompt]) -> str | None:
    """Return the number of prompts that end with a message of the assistant, which the chat template closes."""
    closed = [prompt for prompt in prompts if _ends_with_assistant(prompt)]
    if not closed:
        return None
    problem = f"{len(closed)} of {len(prompts)} prompts end with a message of the assistant, such as {closed[0].id}"
    remedy = "data.chat_template_options {continue_final_message: true} continues it"
    return f"{problem}: the response starts a new message; {remedy}"


def _ends_with_assistant(prompt: Prompt) -> bool:
    messages = prompt.content
    if isinstance(messages, str) or prompt.template_options.get("continue_final_message"):
        return False
    return bool(messages) and messages[-1].get("role") == "assistant"


def _unknown(kind: str, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """Return the number of prompts with text that the student's tokenizer does not know."""
    unknown = None if tokenizer is None else unknown_token(tokenizer)
    found = [prompt for prompt in prompts if unknown in prompt.tokens]
    if tokenizer is None or unknown is None or not found:
        return None
    number = sum(prompt.tokens.count(unknown) for prompt in found)
    problem = f"{len(found)} of {len(prompts)} {kind} prompts contain text that the student's tokenizer does not know"
    return f"{problem}, such as {found[0].id} ({number} x {tokenizer.convert_ids_to_tokens(unknown)})"


def _unused(plan: RunPlan) -> str | None:
    """Return the teachers that no prompt names; they are loaded all the same."""
    used = {prompt.teacher for prompt in plan.data.prompts}
    unused = [name for name in plan.teachers if name not in used]
    return f"no prompt names the teacher {', '.join(unused)}" if unused and used else None


def _itself(plan: RunPlan) -> str | None:
    """Return the teachers that are the current student and know nothing more; StudentTeacher, not its subclasses."""
    names = [name for name, own in plan.teachers.items() if type(own) is StudentTeacher and not own.context]
    problem = "is the current student without a context: all its advantages are 0"
    return f"the teacher {', '.join(names)} {problem}" if names else None


def _unreadable(plan: RunPlan) -> str | None:
    """Return that the student's tokenizer does not know the text that the rollout plan gives to a teacher."""
    data, name = plan.data, type(plan.data.rollout_plan).__name__
    unknown = None if data.tokenizer is None or data.problems or data.recorded else unknown_token(data.tokenizer)
    try:
        known = unknown is None or all(unknown not in (row.prompt or ()) for _, row in planned_rows(plan))
    except UserError:
        return None  # the checks of the plan report it
    return None if known else f"the tokenizer does not know all text of the messages that data.plan {name} writes"


def _unsaved(plan: RunPlan) -> str | None:
    """Return that no checkpoint is written, as with an overlay that replaces the list of callbacks."""
    if plan.processes.checkpoints:
        return None
    remedy = "add RunCheckpoint to trainer.callbacks; a list in a later file replaces the list of an earlier one"
    return f"no RunCheckpoint is among the callbacks, so there is no last.ckpt to resume from or to export: {remedy}"

"""First prompt of each teacher, as text and as tokens."""

from collections.abc import Sequence

from fireopd.errors import UserError
from fireopd.prompts.tokenization import readable_tokens
from fireopd.training.run_plan import RunPlan

__all__ = ["SEPARATOR", "SHOWN", "first_prompts"]

SHOWN = 40
"""Number of tokens that are shown at each end of a long prompt."""
SEPARATOR = "│"
"""Separator of two tokens."""


def first_prompts(plan: RunPlan) -> list[str]:
    """Return lines on the first prompt of each teacher: its id, its text, its tokens.

    A teacher with its own context sees other tokens, which follow.
    """
    lines = []
    for name, teacher in plan.teachers.items():
        prompt = next((prompt for prompt in plan.data.prompts if prompt.teacher == name and prompt.tokens), None)
        if prompt is None:
            continue
        lines += [f"first prompt of {name}: {prompt.id} ({len(prompt.tokens)} tokens)", *_shown(plan, prompt.tokens)]
        try:
            own = teacher.prompt_tokens(prompt)
        except UserError:  # a problem of the teacher, which the checks report
            continue
        if own != prompt.tokens:
            lines += [f"as {name} sees it ({len(own)} tokens)", *_shown(plan, own)]
    return lines


def _shown(plan: RunPlan, tokens: Sequence[int]) -> list[str]:
    tokenizer = plan.data.tokenizer
    if tokenizer is None:
        return []
    left_out = len(tokens) - 2 * SHOWN
    parts = [tokens] if left_out <= 0 else [tokens[:SHOWN], tokens[-SHOWN:]]
    gap = f" ... {left_out} tokens ... "
    return [
        f"  {label:<8}{gap.join(readable_tokens(tokenizer, part, separator) for part in parts)}"
        for label, separator in (("text", ""), ("tokens", SEPARATOR))
    ]

"""Sampling by teachers: a loaded teacher with an engine, for plans that let teachers write tokens of responses."""

from collections.abc import Callable
from dataclasses import dataclass

from fireopd.engines import RolloutEngine
from fireopd.types import Prompt

__all__ = ["TeacherSampler"]


@dataclass(frozen=True)
class TeacherSampler:
    """A loaded teacher that samples responses, or parts of them."""

    engine: RolloutEngine
    """Engine on the weights of the teacher."""
    prompt_tokens: Callable[[Prompt], tuple[int, ...]]
    """Returns the token ids of a prompt as the teacher sees it."""
    limit: int | None
    """Tokens of prompt and response that the teacher can read; None for no limit."""

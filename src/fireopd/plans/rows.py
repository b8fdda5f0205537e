"""Rows of a rollout as plans describe them, and the state of the run that plans see."""

import hashlib
from dataclasses import dataclass

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.types import Prompt, Response

__all__ = ["Draft", "RolloutContext", "RowPlan"]


@dataclass(frozen=True, slots=True)
class RowPlan:
    """One response to sample. A trajectory is the prompt, the prefix, and the sampled rest."""

    max_length: int
    """Maximum response length, tokens, prefix included; at most that of `RolloutContext`."""
    temperature: float | None = None
    """Divisor of the logits of the sampler; None for that of the engine. Student and teachers are scored at the
    temperature of the engine; importance weights correct for another one of the student."""
    prefix: Response | None = None
    """Start of the response with the author of each token; nothing is sampled after a finished one. None for none."""
    sampler: str | None = None
    """Name of the teacher that samples the rest; None for the student."""
    prompt: tuple[int, ...] | None = None
    """Token ids that the sampler reads in the place of the prompt; None for the prompt as the sampler sees it."""

    @property
    def start(self) -> tuple[int, ...]:
        """Token ids of the prefix."""
        return () if self.prefix is None else self.prefix.tokens

    @property
    def complete(self) -> bool:
        """True if there is nothing to sample."""
        return self.prefix is not None and (self.prefix.finished or len(self.prefix.tokens) >= self.max_length)


@dataclass(frozen=True, slots=True)
class Draft:
    """A response that was sampled before the rows are planned: the start of one, or one to rewrite."""

    response: Response
    """The response, with the author of each token."""
    reward: float | None = None
    """Grade of the verifier, in [0, 1]; None unless the plan grades its drafts."""


@dataclass(frozen=True, slots=True)
class RolloutContext:
    """State of a run before a rollout, as plans see it."""

    seed: int
    """Seed of the run."""
    number: int
    """Number of the batch in the run, from 0."""
    policy_version: int
    """Optimizer steps of the student that samples; the clock of schedules."""
    responses: int
    """Maximum number of responses to a prompt: `data.responses_per_prompt`."""
    max_length: int
    """Maximum response length, tokens: `data.engine.max_response_length`."""
    tokenizer: PreTrainedTokenizerBase | None = None
    """The student's tokenizer; None in rollouts without a plan for it."""

    def uniform(self, prompt: Prompt, index: int, purpose: str = "") -> float:
        """Return a number in [0, 1): a hash of seed, batch, prompt and index, equal on all machines.

        Args:
            prompt: the prompt.
            index: number of the response to it.
            purpose: any text; other texts give independent numbers.
        """
        name = f"{purpose}/{self.seed}/{self.number}/{index}/{prompt.id}"
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
        return (number >> 11) / 2**53

"""Loader of rollout batches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, cast

from lightning import Trainer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.distributed import collectives
from fireopd.engines import RolloutEngine
from fireopd.engines.rollout import roll_out
from fireopd.models.loading import load_config
from fireopd.prompts import PromptSource
from fireopd.prompts.contract import checked_order
from fireopd.training.background_rollout import BackgroundRollout, rollout_from_state, rollout_state
from fireopd.training.interrupts import Interrupts
from fireopd.types import Prompt, RolloutBatch
from fireopd.verifiers.grading import grade, rewards_and_votes

__all__ = ["VALIDATION_SEED", "RolloutLoader", "RolloutSettings"]

VALIDATION_SEED = 0
"""Seed of validation rollouts, the same for all runs, so that runs and steps are compared on paired samples."""


class RolloutSettings(Protocol):
    """Attributes of the data module that its loaders need."""

    trainer: Trainer | None
    student: str
    source: PromptSource
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    responses_per_prompt: int
    validation_batch_size: int
    validation_responses: int
    prompts_per_epoch: int
    seed: int
    overlap: bool
    interrupts: Interrupts
    next_rollout: BackgroundRollout
    finished: Callable[[RolloutBatch], None] | None
    grade_training: bool


class RolloutLoader:
    """Iterable over this process's rollout batches, numbered from 0 over all epochs.

    It has a length: without one, Lightning prefetches batches, which then come from old weights.
    """

    def __init__(
        self, data: RolloutSettings, engine: RolloutEngine | None, prompts: list[Prompt], *, training: bool
    ) -> None:
        """Store the settings; the engine is None for recorded rollouts.

        Processes share the prompts of each training batch, and all validation prompts.
        """
        self.data, self.training, self.engine = data, training, engine
        self.rank, self.ranks = (data.trainer.global_rank, data.trainer.world_size) if data.trainer else (0, 1)
        self.vocabulary = int(load_config(data.student, "model.student").get_text_config().vocab_size)
        self.prompts, self.own = prompts, prompts[self.rank :: self.ranks]
        self.size = data.batch_size if training else data.validation_batch_size
        self.next_number = 0
        self.learned = 0
        self.current: RolloutBatch | None = None
        self.restored: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch, the same on every process; training omits an incomplete batch."""
        if self.training:
            return self.data.prompts_per_epoch // self.size
        return -(-len(self.prompts) // (self.size * self.ranks))

    def __iter__(self) -> Iterator[RolloutBatch]:
        """Yield batch after batch, each sampled when it is taken."""
        return self._train() if self.training else self._validate()

    def mark_learned(self, number: int) -> None:
        """Record that the step on a batch is complete."""
        self.learned = number + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: the number of batches that the student has learned from.

        With overlapping rollouts, the next batch comes from weights that no checkpoint holds. The state contains this
        rollout, one entry per process. Every process must call.
        """
        if not self.data.overlap:
            return {"position": self.learned}
        pending = self._pending()
        state = self.restored if pending is None else rollout_state(pending)
        return {"position": self.learned, "next": collectives.all_gather_objects(state)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the batch after the last one that the student has learned from."""
        self.next_number = self.learned = state_dict["position"]
        states = state_dict.get("next", [])
        if self.data.overlap and len(states) == self.ranks and None not in states:
            self.restored = states[self.rank]

    def _pending(self) -> RolloutBatch | None:
        """Return the first batch that the student has not learned from; None if it is not sampled."""
        if self.current is not None and self.current.number == self.learned:
            return self.current  # its step was cut short
        return self.data.next_rollout.peek(self.learned)

    def _train(self) -> Iterator[RolloutBatch]:
        epoch = self.next_number // len(self)
        order = self.data.source.order(self.prompts, self.data.seed, epoch)
        order = checked_order("data.prompts", self.data.source, order, len(self.prompts), self.data.prompts_per_epoch)

        def own(number: int) -> list[Prompt]:
            """Return this process's prompts of a batch."""
            start = (number % len(self)) * self.size
            return [self.prompts[i] for i in order[start : start + self.size]][self.rank :: self.ranks]

        while self.next_number < (epoch + 1) * len(self):
            self.current = self.together(partial(self._next, own(self.next_number), self.next_number))
            self.next_number += 1  # not earlier: a failed rollout is repeated
            self.restored = None
            self.data.next_rollout.discard()
            if self.data.overlap and self.next_number < (epoch + 1) * len(self):
                roll_out = partial(self._roll_out, own(self.next_number), self.next_number)
                self.data.next_rollout.start(self.next_number, roll_out)
            yield self.current

    def _validate(self) -> Iterator[RolloutBatch]:
        for start in range(0, len(self) * self.size, self.size):
            yield self.together(partial(self._roll_out, self.own[start : start + self.size], number=0))

    def together(self, make: Callable[[], RolloutBatch]) -> RolloutBatch:
        """Return a batch, with rewards if they are read. If one rank fails, raise on all ranks so that none hangs."""
        batch, error = None, None
        with self.data.interrupts.sampling():
            try:
                batch = self._graded(make())
            except Exception as failure:  # of any engine or verifier
                error = failure
        collectives.raise_on_all_ranks(error)
        return cast(RolloutBatch, batch)

    def _next(self, prompts: list[Prompt], number: int) -> RolloutBatch:
        """Return a training batch: from the checkpoint, from the background rollout, or sampled now."""
        rows = [prompt for prompt in prompts for _ in range(self.data.responses_per_prompt)]
        restored = None if self.restored is None else rollout_from_state(self.restored, rows)
        if restored is not None:
            return replace(restored, number=number)
        sampled = self.data.next_rollout.get(number)
        if sampled is not None:
            return replace(sampled, seconds=self.data.next_rollout.waited)
        return self._roll_out(prompts, number)

    def _roll_out(self, prompts: list[Prompt], number: int) -> RolloutBatch:
        data = self.data
        assert self.engine is not None
        batch, _, _ = roll_out(
            self.engine,
            prompts,
            responses=data.responses_per_prompt if self.training else data.validation_responses,
            seed=data.seed if self.training else VALIDATION_SEED,
            step=number,
            vocabulary=self.vocabulary,
            first_group=self.rank * self.size,
            finished=data.finished if self.training else None,
        )
        return replace(batch, number=number)

    def _graded(self, batch: RolloutBatch) -> RolloutBatch:
        """Return the batch with rewards and votes, if they are read. Verifiers may need the main thread."""
        if (self.training and not self.data.grade_training) or batch.rewards is not None:
            return batch
        written = [tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.response_mask, strict=True)]
        texts = [str(self.data.tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in written]
        rewards, votes = rewards_and_votes(grade(batch.prompts, texts, self.data.source.verifiers))
        return replace(batch, rewards=rewards, votes=votes)

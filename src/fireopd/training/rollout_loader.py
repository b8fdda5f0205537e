"""Loader of rollout batches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, cast

from lightning import Trainer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.distributed import collectives
from fireopd.engines import RolloutEngine
from fireopd.models.loading import load_config
from fireopd.plans.rollout import Planning, roll_out_batches
from fireopd.prompts import PromptSource
from fireopd.prompts.contract import checked_order
from fireopd.training.background_rollout import RolloutQueue, next_block, rollout_from_state, rollout_state
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
    overlap: int
    interrupts: Interrupts
    queue: RolloutQueue
    finished: Callable[[RolloutBatch], None] | None
    grade_training: bool
    planning: Planning


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
        self.restored: dict[int, dict[str, Any]] = {}

    @property
    def first_group(self) -> int:
        """Number of the first group of this process."""
        return self.rank * self.size

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

        With overlapping rollouts, the next batches come from weights that no checkpoint holds. The state contains these
        rollouts, one list per process. Every process must call.
        """
        if not self.data.overlap:
            return {"position": self.learned}
        states = collectives.all_gather_objects(self._pending())
        shortest = min(map(len, states))  # a rollout may have failed on one process
        return {"position": self.learned, "pending": [own[:shortest] for own in states]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the batch after the last one that the student has learned from."""
        self.next_number = self.learned = state_dict["position"]
        single = state_dict.get("next", [])  # of earlier versions, which held one rollout per process
        states = state_dict.get("pending") or ([] if None in single else [[own] for own in single])
        own = states[self.rank] if self.data.overlap and len(states) == self.ranks else []
        self.restored = dict(enumerate(own, self.learned))

    def needs_engine(self) -> bool:
        """Return whether taking the next batch calls the engine: to sample it, or to start a rollout."""
        number = self.next_number
        return not self._knows(number) or any(not self._knows(other) for other in self._next_block(number))

    def _pending(self) -> list[dict[str, Any]]:
        """Return the states of the batches from the first one that the student has not learned from."""
        number, states = self.learned, list[dict[str, Any]]()
        if self.current is not None and self.current.number == number:  # its step was cut short
            states.append(rollout_state(self.current))
        while number + len(states) in self.restored:
            states.append(self.restored[number + len(states)])
        return states + [rollout_state(own) for own in self.data.queue.pending(number + len(states), self.learned)]

    def _knows(self, number: int) -> bool:
        return number in self.restored or self.data.queue.knows(number)

    def _next_block(self, number: int) -> range:
        """Return the numbers of the batches whose rollout starts when a batch is taken."""
        epoch, place = divmod(number, len(self))
        block = next_block(place, len(self), self.data.overlap)
        return range(epoch * len(self) + block.start, epoch * len(self) + block.stop)

    def _train(self) -> Iterator[RolloutBatch]:
        epoch = self.next_number // len(self)
        order = self.data.source.order(self.prompts, self.data.seed, epoch)
        order = checked_order("data.prompts", self.data.source, order, len(self.prompts), self.data.prompts_per_epoch)
        self.data.queue.discard()

        def own(number: int) -> list[Prompt]:
            """Return this process's prompts of a batch."""
            start = (number % len(self)) * self.size
            return [self.prompts[i] for i in order[start : start + self.size]][self.rank :: self.ranks]

        while self.next_number < (epoch + 1) * len(self):
            number = self.next_number
            self.current = self.together(partial(self._next, own(number), number))
            self.next_number += 1  # not earlier: a failed rollout is repeated
            self.restored.pop(number, None)
            block = [other for other in self._next_block(number) if not self._knows(other)]
            if block:
                planning = self.data.planning.snapshot()  # the step on the current batch may change the plan's state
                batches = {other: own(other) for other in block}
                self.data.queue.start(range(block[0], block[-1] + 1), number, partial(self._sample, batches, planning))
            yield self.current

    def _validate(self) -> Iterator[RolloutBatch]:
        for start in range(0, len(self) * self.size, self.size):
            yield self.together(partial(self._roll_out, self.own[start : start + self.size], 0, Planning()))

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
        """Return a training batch: from the checkpoint, from a rollout in the background, or sampled now."""
        state = self.restored.get(number)
        restored = None if state is None else rollout_from_state(state, prompts, self.first_group)
        if restored is not None:
            return replace(restored, number=number)
        sampled = self.data.queue.take(number)
        if sampled is not None:
            return replace(sampled[0], seconds=sampled[1])
        self.data.queue.wait()  # an engine samples for one caller at a time
        return self._roll_out(prompts, number, self.data.planning)

    def _roll_out(self, prompts: list[Prompt], number: int, planning: Planning) -> RolloutBatch:
        [batch] = self._sample({number: prompts}, planning)
        return batch

    def _sample(self, batches: dict[int, list[Prompt]], planning: Planning) -> list[RolloutBatch]:
        """Return the rollouts of batches, given by number, in one call of the engine."""
        data = self.data
        assert self.engine is not None
        return roll_out_batches(
            planning,
            self.engine,
            batches,
            responses=data.responses_per_prompt if self.training else data.validation_responses,
            seed=data.seed if self.training else VALIDATION_SEED,
            vocabulary=self.vocabulary,
            first_group=self.first_group,
            finished=data.finished if self.training else None,
        )

    def _graded(self, batch: RolloutBatch) -> RolloutBatch:
        """Return the batch with rewards and votes, if they are read. Verifiers may need the main thread."""
        if (self.training and not self.data.grade_training) or batch.rewards is not None:
            return batch
        written = [tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.written, strict=True)]
        texts = [str(self.data.tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in written]
        rewards, votes = rewards_and_votes(grade(batch.prompts, texts, self.data.source.verifiers))
        return replace(batch, rewards=rewards, votes=votes)

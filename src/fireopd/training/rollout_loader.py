"""Loader of rollout batches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from fireopd.distributed import collectives
from fireopd.engines import RolloutEngine
from fireopd.engines.rollout import roll_out
from fireopd.training.background_rollout import from_state, state_of
from fireopd.types import Prompt, RolloutBatch
from fireopd.verifiers.grading import ballot, grade

if TYPE_CHECKING:
    from fireopd.training.data import RolloutDataModule


VALIDATION_SEED = 0
"""Validation rollouts have a seed of their own, so that two runs, or two moments of one, are compared in pairs."""


class RolloutLoader:
    """Yields this process's rollout batches.

    It has a length: without one, Lightning would fetch ahead, and every batch would come from old weights.
    """

    def __init__(
        self, data: "RolloutDataModule", engine: RolloutEngine, prompts: list[Prompt], *, training: bool
    ) -> None:
        """Take the settings of the data module; processes share out validation prompts, and each training batch."""
        self.data, self.training, self.engine = data, training, engine
        self.rank, self.ranks = (data.trainer.global_rank, data.trainer.world_size) if data.trainer else (0, 1)
        self.prompts, self.own = prompts, prompts[self.rank :: self.ranks]
        self.size = data.batch_size if training else data.validation_batch_size
        self.position = 0
        self.handed_out: RolloutBatch | None = None
        self.saved: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Return the number of batches, the same on every process; training leaves out a last one that is not full."""
        if self.training:
            return self.data.prompts_per_epoch // self.size
        return -(-len(self.prompts) // (self.size * self.ranks))

    def __iter__(self) -> Iterator[RolloutBatch]:
        """Roll out batch after batch, each when it is asked for."""
        return self._train() if self.training else self._validate()

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches the run has learnt from; one that an interrupt cut short is to come again.

        Where rollouts overlap, the next batch comes from weights that no checkpoint has: it is kept itself, by process.
        Every process must call.
        """
        position = self.position
        if self.data.trainer:
            progress: Any = self.data.trainer.fit_loop.epoch_loop.batch_progress.current
            position -= progress.ready - progress.processed
        if not self.data.overlap:
            return {"position": position}
        cut_short = position < self.position
        rollouts = self.handed_out if cut_short else self.data.next_rollout.peek(position)
        kept = self.saved if rollouts is None else state_of(rollouts)
        return {"position": position, "next": collectives.all_gather_objects(kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint left off."""
        self.position = state_dict["position"]
        kept = state_dict.get("next", [])
        if self.data.overlap and len(kept) == self.ranks and None not in kept:
            self.saved = kept[self.rank]

    def _train(self) -> Iterator[RolloutBatch]:
        epoch = self.position // len(self)
        order = self.data.source.order(self.prompts, self.data.seed, epoch)

        def own(position: int) -> list[Prompt]:
            """Return this process's prompts of a batch."""
            start = (position % len(self)) * self.size
            return [self.prompts[i] for i in order[start : start + self.size]][self.rank :: self.ranks]

        while self.position < (epoch + 1) * len(self):
            batch = self._together(partial(self._next, own(self.position), self.position))
            self.position += 1  # not before: a rollout that fails is to come again
            self.handed_out = batch
            if self.data.overlap and self.position < (epoch + 1) * len(self):
                roll_out = partial(self._roll_out, own(self.position), self.position)
                self.data.next_rollout.begin(self.position, roll_out)
            yield batch

    def _validate(self) -> Iterator[RolloutBatch]:
        for start in range(0, len(self) * self.size, self.size):
            yield self._together(partial(self._roll_out, self.own[start : start + self.size], step=0))

    def _together(self, make: Callable[[], RolloutBatch]) -> RolloutBatch:
        """Return a batch, graded if that is wanted, or raise on all processes."""
        batch, error = None, None
        try:
            batch = self._graded(make())
        except Exception as failure:  # of any engine or verifier
            error = failure
        collectives.raise_on_all_ranks(error)
        return cast(RolloutBatch, batch)

    def _next(self, prompts: list[Prompt], position: int) -> RolloutBatch:
        """Return the batch that a checkpoint kept, or that was sampled beside the training, or else sample it."""
        rows = [prompt for prompt in prompts for _ in range(self.data.responses_per_prompt)]
        kept = None if self.saved is None else from_state(self.saved, rows)
        sampled, self.saved = self.data.next_rollout.take(position), None
        if sampled is not None:
            sampled = replace(sampled, seconds=self.data.next_rollout.waited)
        return kept or sampled or self._roll_out(prompts, position)

    def _roll_out(self, prompts: list[Prompt], step: int) -> RolloutBatch:
        data = self.data
        batch, _, _ = roll_out(
            self.engine,
            prompts,
            responses=data.responses_per_prompt if self.training else data.validation_responses,
            seed=data.seed if self.training else VALIDATION_SEED,
            step=step,
            first_group=self.rank * self.size,
        )
        return batch

    def _graded(self, batch: RolloutBatch) -> RolloutBatch:
        """Return the batch with rewards and votes, if somebody reads them. Verifiers may need the main thread."""
        if (self.training and not self.data.grade_training) or batch.rewards is not None:
            return batch
        written = [tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.response_mask, strict=True)]
        texts = [str(self.data.tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in written]
        rewards, votes = ballot(grade(batch.prompts, texts, self.data.source.verifiers))
        return replace(batch, rewards=rewards, votes=votes)

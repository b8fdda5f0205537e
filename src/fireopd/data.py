"""The rollout data module: prompts go in, batches of the student's own trajectories come out."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from fireopd import collectives
from fireopd.engines import HFEngine, RolloutEngine
from fireopd.errors import UserError
from fireopd.models import load_tokenizer
from fireopd.overlaps import Overlap, from_state, state_of
from fireopd.prompts import PromptSource, PromptText, TinyPrompts
from fireopd.rollouts import roll_out
from fireopd.tokenization import check_lengths, longest_prompt, tokenize
from fireopd.types import Prompt, RolloutBatch
from fireopd.verifiers.grading import ballot, grade

VALIDATION_SEED = 0
"""Validation rollouts have a seed of their own, so that two runs, or two moments of one, are compared in pairs."""


class RolloutDataModule(LightningDataModule):
    """Rolls out the student on prompts, one batch at a time, at the moment when the batch is asked for."""

    def __init__(
        self,
        student: str = "tiny/student",
        prompts: PromptSource = TinyPrompts(),  # noqa: B008 - frozen
        engine: RolloutEngine = HFEngine(),  # noqa: B008 - copied below
        batch_size: int = 64,
        responses_per_prompt: int = 1,
        validation_batch_size: int = 128,
        validation_responses: int = 4,
        chat_template_options: dict[str, Any] | None = None,
        overlong_prompts: Literal["refuse", "drop"] = "refuse",
        seed: int = 0,
        overlap: bool = False,
    ) -> None:
        """Store the settings.

        Args:
            student: the model whose tokenizer and context length count; follows model.student.
            prompts: source of the prompts.
            engine: samples the responses.
            batch_size: prompts a step, over all processes.
            responses_per_prompt: responses to each of them.
            validation_batch_size: prompts that are rolled out together in validation.
            validation_responses: responses to each validation prompt: the k of avg@k.
            chat_template_options: passed to the chat template, for example {enable_thinking: false}.
            overlong_prompts: what is done about prompts that do not fit into the context with their responses.
            seed: of the order of prompts and of all rollouts; follows seed_everything.
            overlap: sample the next batch while this one is learnt from, from weights that are one rollout batch older.

        Raises:
            ValueError: if a number is out of range.
        """
        super().__init__()
        sizes = {"batch_size": batch_size, "responses_per_prompt": responses_per_prompt}
        sizes |= {"validation_batch_size": validation_batch_size, "validation_responses": validation_responses}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.student, self.source, self.engine = student, prompts, copy.copy(engine)
        self.batch_size, self.responses_per_prompt = batch_size, responses_per_prompt
        self.validation_batch_size, self.validation_responses = validation_batch_size, validation_responses
        self.chat_template_options = chat_template_options or {}
        self.overlong_prompts = overlong_prompts
        self.seed, self.overlap = seed, overlap
        self.next_rollout = Overlap()
        self.grade_training = False
        self.training_prompts: list[Prompt] = []
        self.validation_prompts: list[Prompt] = []
        self.prompts_per_epoch = 0

    def setup(self, stage: str) -> None:
        """Read and tokenize the prompts; no model is loaded.

        Raises:
            UserError: if there are none, if two have one id, or if one does not fit into the context with its response.
        """
        if self.training_prompts:
            return
        self.tokenizer = load_tokenizer(self.student, "model.student")
        self.training_prompts = self._read("training", self.source.training(self.seed))
        self.validation_prompts = self._read("validation", self.source.validation())
        if not self.training_prompts:
            raise UserError("data.prompts", type(self.source).__name__, "no training prompts", "give at least one")
        self.prompts_per_epoch = len(self.source.order(self.training_prompts, self.seed, 0))
        self._check_sizes()
        self._tell_repeated()
        self._tell_unanswered()

    @property
    def tasks(self) -> list[str]:
        """The tasks of the validation prompts."""
        return sorted({prompt.task for prompt in self.validation_prompts})

    def _read(self, kind: str, texts: list[PromptText]) -> list[Prompt]:
        """Return the prompts that fit into the context, ready for the engine; kind says which they are."""
        for place, number in Counter(text.id for text in texts).most_common(1):
            if number > 1:
                problem = f"{number} {kind} prompts have this id"
                raise UserError("data.prompts", place, problem, "give each an id of its own")
        prompts = tokenize(texts, self.tokenizer, self.chat_template_options, "data.prompts")
        limit = longest_prompt(self.student, self.engine, "model.student")
        fitting = [prompt for prompt in prompts if len(prompt.tokens) <= limit]
        if self.overlong_prompts == "refuse":
            remedy = "shorten the prompt, or data.engine.max_response_length, or set data.overlong_prompts to drop"
            check_lengths(prompts, limit, self.engine, "data.prompts", remedy)
        if len(fitting) < len(prompts):
            rank_zero_info(f"{len(prompts) - len(fitting)} of {len(prompts)} {kind} prompts are too long, and dropped")
        return fitting

    def _tell_repeated(self) -> None:
        """Warn of training prompts that are validation prompts too; a small set may repeat its prompts honestly."""
        apart = {str(prompt.content) for prompt in self.validation_prompts}
        repeated = sum(str(prompt.content) in apart for prompt in self.training_prompts)
        if repeated:
            rank_zero_info(f"Warning: {repeated} of {len(self.training_prompts)} training prompts validate, too")

    def _tell_unanswered(self) -> None:
        """Warn of validation prompts to which nothing is known to be right: neither an answer nor details."""
        own = self.validation_prompts
        without = [prompt for prompt in own if not prompt.answer and not prompt.details]
        if without:
            problem = "have no answer, so that no response to them is right"
            rank_zero_info(f"Warning: {len(without)} of {len(own)} validation prompts {problem}: {without[0].id} ...")

    def _check_sizes(self) -> None:
        if self.prompts_per_epoch < self.batch_size:
            problem = f"only {self.prompts_per_epoch} training prompts an epoch"
            raise UserError("data.batch_size", self.batch_size, problem, "lower it, or give more prompts")
        ranks = self.trainer.world_size if self.trainer else 1
        if self.batch_size < ranks:
            raise UserError("data.batch_size", self.batch_size, f"{ranks} processes", "give each at least one prompt")

    def train_dataloader(self) -> "RolloutLoader":
        """Return the loader of training rollouts."""
        return RolloutLoader(self, self.engine, self.training_prompts, training=True)

    def val_dataloader(self) -> "list[RolloutLoader]":
        """Return the loader of validation rollouts, if there are validation prompts."""
        return [self.validation_loader(self.engine)] if self.validation_prompts else []

    def validation_loader(self, engine: RolloutEngine, prompts: list[Prompt] | None = None) -> "RolloutLoader":
        """Return a loader of validation rollouts from any engine, of all validation prompts or of those given."""
        return RolloutLoader(self, engine, self.validation_prompts if prompts is None else prompts, training=False)


class RolloutLoader:
    """Yields this process's rollout batches.

    It has a length: without one, Lightning would fetch ahead, and every batch would come from old weights.
    """

    def __init__(
        self, data: RolloutDataModule, engine: RolloutEngine, prompts: list[Prompt], *, training: bool
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
        return {"position": position, "next": collectives.from_all(kept)}

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
        collectives.raise_together(error)
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
        rewards, votes = ballot(grade(batch.prompts, texts))
        return replace(batch, rewards=rewards, votes=votes)

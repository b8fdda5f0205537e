"""The rollout data module: prompts go in, batches of the student's own trajectories come out."""

import copy
from collections import Counter
from typing import Any, Literal

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from fireopd.engines import HFEngine, RolloutEngine
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer
from fireopd.prompts import PromptSource, PromptText, TinyPrompts
from fireopd.prompts.tokenization import check_lengths, longest_prompt, tokenize
from fireopd.training.background_rollout import Overlap
from fireopd.training.rollout_loader import RolloutLoader
from fireopd.types import Prompt


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
        limit = longest_prompt(
            self.student, self.engine.max_response_length, self.engine.longest_trajectory, "model.student"
        )
        fitting = [prompt for prompt in prompts if len(prompt.tokens) <= limit]
        if self.overlong_prompts == "refuse":
            remedy = "shorten the prompt, or data.engine.max_response_length, or set data.overlong_prompts to drop"
            check_lengths(prompts, limit, self.engine.max_response_length, "data.prompts", remedy)
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

"""Data module that samples batches of the student's trajectories on prompts."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.distributed import collectives
from fireopd.engines import HFEngine, RolloutEngine
from fireopd.errors import UserError, collect_errors, named_in_traceback, raise_together
from fireopd.method import Method
from fireopd.models.loading import load_tokenizer, vocabulary_size
from fireopd.plans import BatchSummary, FixedPlan, RolloutPlan
from fireopd.plans.rollout import Planning
from fireopd.prompts import PromptSource, PromptText, TinyPrompts
from fireopd.prompts.contract import checked_order, checked_texts
from fireopd.prompts.fingerprint import prompts_fingerprint
from fireopd.prompts.tokenization import check_lengths, longest_prompt, tokenize, untokenized
from fireopd.teachers import Teacher
from fireopd.training.background_rollout import RolloutQueue, largest_staleness
from fireopd.training.interrupts import Interrupts
from fireopd.training.recorded_loader import RecordedLoader
from fireopd.training.recorded_rollouts import RecordedRollouts, Recording
from fireopd.training.rollout_loader import RolloutLoader
from fireopd.training.run_plan import DataPlan
from fireopd.types import Prompt, Response, RolloutBatch
from fireopd.verifiers.grading import grade

__all__ = ["RolloutDataModule"]


class RolloutDataModule(LightningDataModule):
    """Data module whose loaders sample one rollout batch each time the trainer takes one.

    Args:
        student: model that gives tokenizer and context length; follows model.student.
        prompts: source of the prompts.
        engine: samples the responses.
        batch_size: prompts per step, over all processes.
        responses_per_prompt: responses to each training prompt, the most of them with a plan.
        validation_batch_size: prompts per validation batch.
        validation_responses: responses to each validation prompt, the k of avg@k.
        chat_template_options: arguments of the chat template, for example {enable_thinking: false}.
        overlong_prompts: refuse or drop prompts that do not fit into the context with a response.
        seed: seed of the prompt order and of all rollouts; follows seed_everything.
        overlap: number of batches that are sampled together during the steps on the batches before them, from older
            weights; 0 to sample each batch when it is taken.
        max_staleness: largest age of a batch, optimizer steps; an older one is refused. null for that of overlap.
        rollouts: recorded rollouts with the scores of their teachers to train on, in the place of responses that
            the engine samples; then prompts and engine serve validation only. null to sample.
        plan: length, number, author and prefix of the responses to each training prompt.

    Raises:
        ValueError: if a number is out of range.
    """

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
        overlap: int = 0,
        max_staleness: int | None = None,
        rollouts: RecordedRollouts | None = None,
        plan: RolloutPlan = FixedPlan(),  # noqa: B008 - copied below
    ) -> None:
        """Store the settings."""
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
        for name, value in {"overlap": overlap, "max_staleness": max_staleness or 0}.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        self.seed, self.overlap, self.rollouts = seed, overlap, rollouts
        self.max_staleness = max_staleness
        self.recording: Recording | None = None  # until `load`
        self.interrupts = Interrupts()
        self.queue = RolloutQueue()
        self.finished: Callable[[RolloutBatch], None] | None = None  # gets each trajectory when it is complete
        self.training_loader: RolloutLoader | None = None
        self.grade_training = False
        self.planning = Planning(copy.deepcopy(plan))
        self.problems: list[UserError] | None = None
        self.tokenizer: PreTrainedTokenizerBase = None  # type: ignore[assignment] # until `load`
        self.training_prompts: list[Prompt] = []
        self.validation_prompts: list[Prompt] = []
        self.prompts_per_epoch = 0

    def setup(self, stage: str) -> None:
        """Load and tokenize the prompts, without loading a model.

        Raises:
            UserError: for all problems that `load` finds, or if processes have different prompts.
        """
        problem: Exception | None = None
        try:
            raise_together(self.load())
        except Exception as error:  # of a prompt source, possibly in one process only
            problem = error
        collectives.raise_on_all_ranks(problem)
        own = (self.fingerprint, prompts_fingerprint(self.validation_prompts))
        if len(set(collectives.all_gather_objects(own))) > 1:
            remedy = "give all nodes the same files, and draw by the seed: the order of a set differs between processes"
            raise UserError("data.prompts", type(self.source).__name__, "processes have different prompts", remedy)

    def load(self) -> list[UserError]:
        """Load and tokenize the prompts, once, without loading a model.

        Returns:
            The problems, such as a tokenizer or prompts that cannot be loaded, no training prompts, equal ids, prompts
            that do not fit into the context, too few prompts for a batch. With a problem, prompts may be missing or
            untokenized.
        """
        if self.problems is not None:
            return self.problems
        self.problems = problems = list[UserError]()
        with collect_errors(problems):
            self.tokenizer = load_tokenizer(self.student, "model.student")
        with collect_errors(problems):
            if self.rollouts is None:
                self._load_training_prompts(problems)
            elif self.tokenizer is not None:
                self._load_recording(self.rollouts)
            if self.training_prompts:
                self._check_sizes()
        with collect_errors(problems):
            with named_in_traceback("data.prompts", self.source, "returns its validation prompts"):
                drawn = self.source.validation()
            texts = checked_texts("data.prompts", self.source, "validation", drawn)
            self.validation_prompts = self._tokenized("validation", texts, problems)
        return problems

    def _load_training_prompts(self, problems: list[UserError]) -> None:
        with named_in_traceback("data.prompts", self.source, "returns its training prompts"):
            drawn = self.source.training(self.seed)
        texts = checked_texts("data.prompts", self.source, "training", drawn)
        self.training_prompts = self._tokenized("training", texts, problems)
        if not self.training_prompts:
            raise UserError("data.prompts", type(self.source).__name__, "no training prompts", "give at least one")
        order = self.source.order(self.training_prompts, self.seed, 0)
        self.prompts_per_epoch = len(checked_order("data.prompts", self.source, order, len(self.training_prompts)))

    def _load_recording(self, rollouts: RecordedRollouts) -> None:
        self.recording = recording = rollouts.load(self.student, self.tokenizer)
        self.training_prompts, self.prompts_per_epoch = recording.prompts, len(recording.prompts)
        if self.responses_per_prompt not in (1, recording.responses_per_prompt):
            problem = f"the recorded rollouts have {recording.responses_per_prompt} responses to a prompt"
            raise UserError("data.responses_per_prompt", self.responses_per_prompt, problem, "leave it out")

    @property
    def samples(self) -> bool:
        """True if the engine samples: training rollouts, or validation rollouts."""
        return self.rollouts is None or bool(self.validation_prompts)

    @property
    def tasks(self) -> list[str]:
        """Tasks of the validation prompts."""
        return sorted({prompt.task for prompt in self.validation_prompts})

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the training prompts, after `load`."""
        return prompts_fingerprint(self.training_prompts)

    def _tokenized(self, kind: str, texts: list[PromptText], problems: list[UserError]) -> list[Prompt]:
        """Return the prompts, without tokens if they cannot be tokenized, and add problems; `kind` names them."""
        for place, number in Counter(text.id for text in texts).most_common(1):
            if number > 1:
                problem = f"{number} {kind} prompts of {type(self.source).__name__} have this id"
                remedy = "give each a unique id; the column of a table is columns.id"
                problems.append(UserError("data.prompts", place, problem, remedy))
        if self.tokenizer is None:
            return untokenized(texts)
        with collect_errors(problems):
            prompts = tokenize(texts, self.tokenizer, self.chat_template_options, "data.prompts")
            return self._fitting(kind, prompts, problems)
        return untokenized(texts)

    def _fitting(self, kind: str, prompts: list[Prompt], problems: list[UserError]) -> list[Prompt]:
        """Return the prompts that fit into the context, or all prompts and a problem if long ones are refused."""
        response = self.engine.max_response_length
        limit = longest_prompt(self.student, response, self.engine.longest_trajectory, "model.student")
        if self.overlong_prompts == "refuse":
            remedy = "shorten the prompt, or data.engine.max_response_length, or set data.overlong_prompts to drop"
            with collect_errors(problems):
                check_lengths(prompts, limit, response, "data.prompts", remedy)
            return prompts
        fitting = [prompt for prompt in prompts if len(prompt.tokens) <= limit]
        if len(fitting) < len(prompts):
            rank_zero_info(f"{len(prompts) - len(fitting)} of {len(prompts)} {kind} prompts are too long and dropped")
        return fitting

    def _check_sizes(self) -> None:
        if self.prompts_per_epoch < self.batch_size:
            problem = f"only {self.prompts_per_epoch} training prompts an epoch"
            raise UserError("data.batch_size", self.batch_size, problem, "lower it, or give more prompts")
        ranks = self.trainer.world_size if self.trainer else 1
        if self.batch_size < ranks:
            raise UserError("data.batch_size", self.batch_size, f"{ranks} processes", "give each at least one prompt")

    def plan(self) -> DataPlan:
        """Return the description of prompts and rollouts, after `load`."""
        return DataPlan(
            student=self.student,
            problems=self.load(),
            tokenizer=self.tokenizer,
            training_prompts=self.training_prompts,
            validation_prompts=self.validation_prompts,
            prompts_per_epoch=self.prompts_per_epoch,
            verifiers=self.source.verifiers,
            engine=self.engine,
            batch_size=self.batch_size,
            responses_per_prompt=self.responses_per_prompt,
            overlap=self.overlap,
            max_staleness=self.max_staleness,
            recorded=self.recording,
            rollout_plan=self.planning.plan,
        )

    def prepare(self, method: Method, teachers: Mapping[str, Teacher], *, graded: bool) -> None:
        """Prepare the rollouts for a method and loaded teachers.

        Args:
            method: method of the run.
            teachers: teachers by name; those that the plan lets sample get an engine.
            graded: whether training rollouts are graded.
        """
        self.grade_training = graded
        plan, vocabulary = self.planning.plan, vocabulary_size(self.student, "model.student")
        writers = sorted(frozenset[str]().union(*map(plan.writers, self.training_prompts)))
        self.planning = Planning(
            plan,
            {name: teachers[name].sampler(self.engine, vocabulary) for name in writers},
            self.tokenizer,
            self._grade if plan.grades_drafts else None,
            trains_given=method.objective.trains_given,
            reweighted=method.importance_cap is not None,
        )

    def _grade(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Return the rewards of responses."""
        texts = [str(self.tokenizer.decode(list(own.tokens), skip_special_tokens=True)) for own in responses]
        return [verdict.reward for verdict in grade(prompts, texts, self.source.verifiers)]

    def allowed_staleness(self, updates: int) -> int:
        """Return the largest age of a batch in optimizer steps, of which a batch gets `updates`."""
        expected = largest_staleness(self.overlap, updates)
        return expected if self.max_staleness is None else min(expected, self.max_staleness)

    def mark_learned(self, number: int, summary: BatchSummary) -> None:
        """Record that the step on a training batch is complete, and let the plan observe the batch.

        Args:
            number: number of the batch.
            summary: the batch after the step.
        """
        self.interrupts.torn = False
        self.planning.plan.observe(summary)
        if self.training_loader is not None:
            self.training_loader.mark_learned(number)

    def train_dataloader(self) -> "RolloutLoader":
        """Return the loader of training rollouts."""
        if self.recording is not None:
            self.training_loader = RecordedLoader(self, self.recording)
        else:
            self.training_loader = RolloutLoader(self, self.engine, self.training_prompts, training=True)
        return self.training_loader

    def val_dataloader(self) -> "list[RolloutLoader]":
        """Return the loader of validation rollouts, or no loader without validation prompts."""
        return [self.validation_loader(self.engine)] if self.validation_prompts else []

    def validation_loader(self, engine: RolloutEngine, prompts: list[Prompt] | None = None) -> "RolloutLoader":
        """Return a loader of validation rollouts of any engine; `prompts` defaults to all validation prompts."""
        return RolloutLoader(self, engine, self.validation_prompts if prompts is None else prompts, training=False)

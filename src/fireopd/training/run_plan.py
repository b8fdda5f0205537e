"""Description of a run: models, method, budgets, processes and data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from lightning import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.distributed.fsdp import FSDP2Strategy, Sharding
from fireopd.engines import RolloutEngine
from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.models.adapter import Adapter
from fireopd.models.attention import Attention
from fireopd.models.kernels import Kernels
from fireopd.models.loading import Dtype
from fireopd.plans import FixedPlan, RolloutPlan
from fireopd.teachers import Teacher
from fireopd.training.recorded_rollouts import Recording
from fireopd.types import Prompt
from fireopd.verifiers import Verifier

__all__ = ["Budgets", "DataPlan", "ProcessPlan", "RunPlan"]


@dataclass(frozen=True)
class Budgets:
    """Number of updates on a rollout batch, and what goes through the student at once."""

    mini_batches: int
    """Updates of a pass over a rollout batch."""
    epochs: int
    """Passes over a rollout batch."""
    token_budget: int
    """Tokens of a micro-batch, padding included."""
    chunk_logits: int
    """Logits held at once, tokens x vocabulary."""
    kernels: Kernels
    """Implementation of the log-probabilities."""
    gradient_checkpointing: bool
    """True if activations are recomputed in the backward pass."""
    attention: Attention | None = None
    """Implementation of attention; None for the choice of transformers."""
    compiled: bool = False
    """True if the decoder layers are compiled."""

    def __post_init__(self) -> None:
        """Raise `ValueError` if a number is out of range."""
        counts = {"mini_batches": self.mini_batches, "epochs": self.epochs, "token_budget": self.token_budget}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def updates(self) -> int:
        """Largest number of updates on a rollout batch."""
        return self.mini_batches * self.epochs


@dataclass(frozen=True)
class ProcessPlan:
    """Processes of a run, their devices and their limits."""

    world_size: int
    """Number of processes."""
    nodes: int
    """Number of machines."""
    shards: int
    """Processes that share one copy of the models; 1 if each process holds a full copy."""
    strategy: str
    """Name of the trainer's strategy class."""
    device: torch.device
    """Device of this process."""
    precision: str
    """Precision of the trainer, for example `bf16-mixed`."""
    max_epochs: int | None
    """Passes over the training prompts; -1 for no limit."""
    max_steps: int
    """Optimizer steps of the run; -1 for no limit."""
    gradient_clip_val: float | None
    """Gradient clipping by the trainer."""
    accumulate_grad_batches: int
    """Gradient accumulation by the trainer, batches."""
    folder: str
    """Folder above those of the runs: the trainer's `default_root_dir`, whatever its loggers are."""
    checkpoints: bool
    """True if a `RunCheckpoint` saves checkpoints: those of Lightning's own callback cannot be resumed."""
    val_check_interval: float | None = 1.0
    """Batches, or share of the batches, between validations."""
    background_checkpoints: bool = False
    """True if they are written in the background, from a copy in host memory."""

    @property
    def sharded(self) -> bool:
        """True if the models are sharded (FSDP2), also over a single process."""
        return self.strategy == FSDP2Strategy.__name__

    def on_gpus(self, count: int, *, sharded: bool = False) -> "ProcessPlan":
        """Return the processes of a run on a number of GPUs; with `sharded`, under FSDP2 in any case."""
        strategy = FSDP2Strategy.__name__ if sharded or self.sharded else self.strategy
        if count > 1 and strategy == SingleDeviceStrategy.__name__:
            strategy = DDPStrategy.__name__  # the trainer's choice
        shards = count if strategy == FSDP2Strategy.__name__ else 1
        return replace(self, world_size=count, shards=shards, strategy=strategy, device=torch.device("cuda"))

    @classmethod
    def of(cls, trainer: Trainer) -> "ProcessPlan":
        """Return the processes that a trainer is set up for."""
        strategy = trainer.strategy
        # RunCheckpoint imports this module. Lightning's callback, which a trainer has by default, has no background.
        saving = [own for own in trainer.checkpoint_callbacks if hasattr(own, "background")]
        return cls(
            world_size=trainer.world_size,
            nodes=trainer.num_nodes,
            shards=trainer.world_size if isinstance(strategy, FSDP2Strategy) else 1,
            strategy=type(strategy).__name__,
            device=strategy.root_device,
            precision=str(trainer.precision),
            max_epochs=trainer.max_epochs,
            max_steps=trainer.max_steps,
            gradient_clip_val=trainer.gradient_clip_val,
            accumulate_grad_batches=trainer.accumulate_grad_batches,
            folder=str(trainer.default_root_dir),
            checkpoints=bool(saving),
            val_check_interval=trainer.val_check_interval,
            background_checkpoints=any(own.background for own in saving),
        )


@dataclass(frozen=True)
class DataPlan:
    """Prompts of a run, their verifiers, and the rollouts on them."""

    student: str
    """Model that gave tokenizer and context length."""
    problems: Sequence[UserError]
    """Problems found when the prompts were loaded; with a problem, prompts may be missing or untokenized."""
    tokenizer: PreTrainedTokenizerBase | None
    """The student's tokenizer; None if it could not be loaded."""
    training_prompts: Sequence[Prompt]
    """Tokenized training prompts."""
    validation_prompts: Sequence[Prompt]
    """Tokenized validation prompts."""
    prompts_per_epoch: int
    """Training prompts of one pass."""
    verifiers: Mapping[str, Verifier]
    """Verifiers by `Prompt.source`."""
    engine: RolloutEngine
    """Samples the responses."""
    batch_size: int
    """Prompts of a rollout batch, over all processes."""
    responses_per_prompt: int
    """Responses to each training prompt."""
    overlap: int
    """Number of batches that are sampled together during the steps on the batches before them; 0 for none."""
    recorded: Recording | None = None
    """Recorded rollouts to train on; None if the engine samples them."""
    max_staleness: int | None = None
    """Largest age of a batch, optimizer steps; None for what `overlap` brings."""
    rollout_plan: RolloutPlan = field(default_factory=FixedPlan)
    """What is sampled for each training prompt."""

    @property
    def prompts(self) -> list[Prompt]:
        """Training prompts followed by validation prompts."""
        return [*self.training_prompts, *self.validation_prompts]

    @property
    def samples(self) -> bool:
        """True if the engine samples: training rollouts, or validation rollouts."""
        return self.recorded is None or bool(self.validation_prompts)

    @property
    def graded_prompts(self) -> list[Prompt]:
        """Prompts whose responses may be graded; recorded rollouts hold their rewards."""
        return self.prompts if self.recorded is None else list(self.validation_prompts)

    @property
    def trajectories(self) -> int:
        """Trajectories of a rollout batch, over all processes."""
        return self.batch_size * self.group_size

    @property
    def group_size(self) -> int:
        """Responses to each training prompt, the most of them in recorded rollouts."""
        return self.responses_per_prompt if self.recorded is None else self.recorded.responses_per_prompt

    @property
    def longest_trajectory(self) -> int:
        """Tokens of the longest training prompt with the longest response; those of the engine without prompts."""
        if self.recorded is not None:
            return self.recorded.longest_trajectory
        if not self.training_prompts:
            return self.engine.longest_trajectory or self.engine.max_response_length
        return max(len(prompt.tokens) for prompt in self.training_prompts) + self.engine.max_response_length


@dataclass(frozen=True)
class RunPlan:
    """Description of a run, complete before any model is loaded.

    `FiReOPDModule.run_plan` makes it; the checks, the memory estimate and the summary of a run read it.
    """

    student: str
    """Model folder, hub name or embedded model."""
    dtype: Dtype
    """Type of the student's parameters; those of an adapter are float32."""
    teachers: Mapping[str, Teacher]
    """Teachers by the names that prompts use."""
    base: Teacher | None
    """Base model, if one is set."""
    method: Method
    """Filter, weighter and objective."""
    signals: frozenset[str]
    """Names of all signals to compute."""
    distributions: bool
    """True if the distributions of student and teachers are compared."""
    optimizer: OptimizerCallable
    """Factory of the student's optimizer."""
    scheduler: LRSchedulerCallable | None
    """Factory of the scheduler of the learning rate, if one is set."""
    budgets: Budgets
    """Number and size of the updates."""
    processes: ProcessPlan
    """Processes and devices."""
    data: DataPlan
    """Prompts and rollouts."""
    adapter: Adapter | None = None
    """Adapter that is trained instead of all parameters, if one is set."""
    sharding: Sharding = field(default_factory=Sharding)
    """Precision and offloading of sharded models."""
    scores_student_first: bool = False
    """True if the student scores the whole batch before the update."""

    @property
    def frozen_models(self) -> dict[str, Teacher]:
        """Models of the teachers, and the base model if a strategy reads it, by their settings."""
        models = [teacher.models(f"model.teachers.{name}") for name, teacher in self.teachers.items()]
        frozen = dict(chain.from_iterable(models))
        recorded = frozenset[str]() if self.data.recorded is None else self.data.recorded.signals
        if self.base is not None and "base_logprobs" in self.signals - recorded:
            frozen["model.base"] = self.base
        return frozen

    def longest_row(self, model: Teacher) -> int:
        """Return the tokens of the longest trajectory that a teacher, or a part of one, scores, with its context."""
        prompts = self.data.training_prompts
        if self.data.recorded is not None or not prompts:
            return self.data.longest_trajectory
        names = {name for name, own in self.teachers.items() if any(part is model for _, part in own.models(name))}
        own = [prompt for prompt in prompts if prompt.teacher in names] or prompts
        return max(len(model.prompt_tokens(prompt)) for prompt in own) + self.data.engine.max_response_length

    def shares_weights(self, teacher: Teacher) -> bool:
        """Return whether a teacher scores with weights of the student, and loads none itself."""
        return teacher.reads_student(self.student, self.dtype, adapter=self.adapter is not None)

    @property
    def steps(self) -> int | None:
        """Rollout batches of the run; None if neither passes nor optimizer steps are limited."""
        epochs, steps = self.processes.max_epochs, self.processes.max_steps
        in_epochs = self.data.prompts_per_epoch // self.data.batch_size * (1 if epochs is None else epochs)
        limits = [in_epochs] * (epochs != -1) + [-(-steps // self.budgets.updates)] * (steps != -1)
        return min(limits, default=None)

    @property
    def optimizer_steps(self) -> int | None:
        """Optimizer steps of the run at most; None if they are not limited."""
        return None if self.steps is None else self.steps * self.budgets.updates

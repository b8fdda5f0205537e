"""The training step: rollouts -> scores -> targets -> loss -> step, on any device and any number of processes."""

from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from fireopd.algorithm import Normalization, Reduction, fire_loss, loss_fractions
from fireopd.distributed import collectives
from fireopd.distributed.fsdp import FSDP2Strategy, Sharding
from fireopd.distributed.gather import gather_batch
from fireopd.filters import KeepAll, TrajectoryFilter
from fireopd.method import Method, Population
from fireopd.models.distributions import DistributionComparison, TeacherDistributions
from fireopd.models.loading import Dtype, disable_dropout, load_causal_lm
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer, check_scorer
from fireopd.models.weight_stream import WeightStream
from fireopd.objectives import Objective, ReverseKL
from fireopd.teachers import Teacher, deduplicate
from fireopd.training import skipped_steps
from fireopd.training.checks import check_run
from fireopd.training.data import RolloutDataModule
from fireopd.training.interrupts import Interrupts
from fireopd.training.micro_batches import micro_batches, updates
from fireopd.training.run_summary import announcement
from fireopd.training.score_batch import score_batch
from fireopd.training.step_metrics import speed, step_diagnostics
from fireopd.training.stopwatch import Stopwatch
from fireopd.training.update_targets import Supervision
from fireopd.training.validation_metrics import ValidationMetrics
from fireopd.training.weight_sync import WeightSync
from fireopd.types import RolloutBatch, ScoredBatch, strategy_state
from fireopd.types.signals import JOINT, OF_STUDENT
from fireopd.types.targets import Targets
from fireopd.weighters import TokenWeighter, UniformWeighter


class FiReOPDModule(LightningModule):
    """Trains a student on its own rollouts with the per-token supervision of frozen teachers.

    Args:
        teachers: by the name that prompts call them.
        student: a model folder, a hub name, or an embedded model such as tiny/student.
        trajectory_filter: keeps or drops trajectories.
        token_weighter: weighs tokens.
        objective: gives tokens their advantage, or states a divergence of student and teacher.
        normalization: weights have mean 1 over each trajectory (paper), over the batch (released code), or as is.
        reduction: the loss is a mean over kept tokens, or over kept trajectories of their token means.
        clip_ratio: clip of the surrogate; acts from the second update on a rollout batch.
        importance_cap: cap of the importance weights between engine and trainer; null switches them off.
        population: micro_batch_of_one reproduces the released scripts, whose filter never drops anything.
        optimizer: of the student's parameters.
        scheduler: of the learning rate, one tick an optimizer step; null for a constant rate.
        gradient_clip: largest norm of the gradient; null for no limit.
        mini_batches: updates that a rollout batch is cut into.
        epochs: passes over a rollout batch.
        token_budget: tokens that go through the student at once, padding included.
        chunk_logits: logits of the student held at once, tokens x vocabulary.
        dtype: type of the student's parameters.
        gradient_checkpointing: recompute activations in the backward pass, to save memory.
        sharding: of student and teachers, where the trainer's strategy is FSDP2Strategy.
        base: model that the student is compared with beside its teachers, loaded if a strategy reads base_logprobs.
        top_k: how many of the likeliest tokens topk_overlap and student_topk_mass are about.
        extra_signals: signals to compute for the curves; one of the student has it read all rows, dropped ones too.
        max_skipped_steps: steps in a row that come to nothing (all dropped, or not finite) before the run stops.

    Raises:
        ValueError: if a number is out of range or a strategy declares an unknown signal.
    """

    def __init__(
        self,
        teachers: dict[str, Teacher],
        student: str = "tiny/student",
        trajectory_filter: TrajectoryFilter = KeepAll(),  # noqa: B008 - frozen
        token_weighter: TokenWeighter = UniformWeighter(),  # noqa: B008 - frozen
        objective: Objective = ReverseKL(),  # noqa: B008 - frozen
        normalization: Normalization = "trajectory",
        reduction: Reduction = "token",
        clip_ratio: float = 0.2,
        importance_cap: float | None = 5.0,
        population: Population = "rollout_batch",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        gradient_clip: float | None = 1.0,
        mini_batches: int = 1,
        epochs: int = 1,
        token_budget: int = 16384,
        chunk_logits: int = CHUNK_LOGITS,
        dtype: Dtype = "float32",
        gradient_checkpointing: bool = False,
        sharding: Sharding = Sharding(),  # noqa: B008 - frozen
        base: Teacher | None = None,
        top_k: int = 16,
        extra_signals: frozenset[str] = frozenset(),
        max_skipped_steps: int = 10,
    ) -> None:
        """Store the settings; `setup` loads the models."""
        super().__init__()
        counts = {"mini_batches": mini_batches, "epochs": epochs, "token_budget": token_budget, "top_k": top_k}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if gradient_clip is not None and not gradient_clip > 0:
            raise ValueError(f"gradient_clip must be greater than 0, got {gradient_clip}; null for no limit")
        self.automatic_optimization = False
        parts = (trajectory_filter, token_weighter, objective)
        self.method = Method(*parts, normalization, reduction, clip_ratio, importance_cap, population)
        self.teachers = deduplicate(teachers)
        self.base = next((teacher for teacher in self.teachers.values() if teacher == base), base)
        self.top_k = top_k
        self.student_name, self.dtype_name, self.chunk_logits = student, dtype, chunk_logits
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.gradient_clip, self.token_budget = gradient_clip, token_budget
        self.mini_batches, self.epochs = mini_batches, epochs
        self.gradient_checkpointing, self.sharding = gradient_checkpointing, sharding
        self.extra_signals = frozenset(extra_signals)
        self.max_skipped_steps = max_skipped_steps
        self.interrupts = Interrupts()
        self.policy_version = 0
        self.skipped_steps = 0
        self.validated: tuple[int, dict[str, float]] = (-1, {})
        self.student: CausalScorer = None  # type: ignore[assignment] # until configure_model

    def setup(self, stage: str) -> None:
        """Check everything that can be known to be wrong, then load the teachers, and the base model if it is read."""
        check_run(self, self.data)
        if self.trainer.is_global_zero:
            rank_zero_info(announcement(self, self.data))
        readers = {f"model.teachers.{name}": teacher for name, teacher in self.teachers.items()}
        if self.base is not None and "base_logprobs" in self.requires:
            readers["model.base"] = self.base
        for key, reader in readers.items():
            rank_zero_info(f"Loading {key} ...")
            reader.setup(key, self.device, partial(self._shard, frozen=True))

    def configure_model(self) -> None:
        """Load the student, once."""
        if self.student is not None:
            return
        rank_zero_info(f"Loading student {self.student_name} ...")
        model = disable_dropout(load_causal_lm(self.student_name, "model.student", self.dtype_name)).train()
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self.student = CausalScorer(model, self.chunk_logits)
        check_scorer("model.student", self.student_name, self.student)
        self._shard(self.student, frozen=False)

    def _shard(self, scorer: CausalScorer, *, frozen: bool) -> None:
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            self.sharding.shard(scorer, self.trainer.strategy.device_mesh["data_parallel"], frozen=frozen)

    def configure_optimizers(self) -> Any:
        """Return optimizer and scheduler of the student's parameters."""
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def configure_callbacks(self) -> list[Callback]:
        """Add what no run can be right without: weights in sync, and whole steps when it is stopped."""
        return [WeightSync(), self.interrupts]

    @property
    def requires(self) -> frozenset[str]:
        """All the signals that are computed."""
        return self.method.requires | {"student_logprobs", "sampling_logprobs"} | self.extra_signals

    @property
    def scores_student_first(self) -> bool:
        """Whether the student reads a whole batch before its update, because targets, updates or curves need it."""
        several = self.mini_batches * self.epochs > 1
        return several or self.method.scores_student_first or bool(self.extra_signals & OF_STUDENT)

    @property
    def compares(self) -> bool:
        """Whether the teachers' distributions are needed beside the student's."""
        return self.method.direct or bool(self.requires & JOINT)

    @property
    def data(self) -> RolloutDataModule:
        """The data module of the run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def student_weights(self) -> WeightStream:
        """Return the student's tensors, named as in the Hugging Face model."""
        return WeightStream(self.student.model)

    def training_step(self, rollouts: RolloutBatch, batch_idx: int) -> dict[str, Any]:
        """Learn from one rollout batch."""
        staleness = self.policy_version - rollouts.policy_version
        if not 0 <= staleness <= (self.mini_batches * self.epochs if self.data.overlap else 0):
            sampler = f"sampled by version {rollouts.policy_version} of the student"
            raise RuntimeError(f"stale rollouts: {sampler}, which is at version {self.policy_version}")
        self.log("rollout/staleness", float(staleness))
        watch = Stopwatch(rollout=rollouts.seconds)
        scored, distributions = self.score(rollouts, watch)
        batch, own = gather_batch(scored)
        fault = skipped_steps.unusable_signal(batch, self.method.requires | {"student_logprobs", "sampling_logprobs"})
        supervision = Supervision(self.method, batch, void=fault is not None)
        with watch("update"):
            self.interrupts.postpone()
            keep, comparison = supervision.keep, self.method.comparison(distributions)
            cuts = updates(keep, mini_batches=self.mini_batches, epochs=self.epochs, seed=self.policy_version)
            steps = [self._update(supervision, own, rows, comparison) for rows in cuts]
        batch, targets = supervision.whole()
        fault = fault or skipped_steps.unusable_signal(batch, self.method.requires & OF_STUDENT)
        fault = fault or skipped_steps.fruitless(batch, targets, steps, self.method.strategies)
        self.skipped_steps = self.skipped_steps + 1 if fault else 0
        if fault:
            skipped_steps.pass_over(fault, self.skipped_steps, self.max_skipped_steps)
        self._log_step(batch, targets, steps, watch)
        return {"batch": batch, "targets": targets}

    def score(self, rollouts: RolloutBatch, watch: Stopwatch) -> tuple[ScoredBatch, TeacherDistributions | None]:
        """Have all models that have to be asked first read this rank's trajectories; see `score_batch`."""
        return score_batch(
            rollouts,
            self.student if self.scores_student_first else None,
            self.teachers,
            self.base,
            watch,
            signals=self.requires,
            distributions=self.compares,
            top_k=self.top_k,
            token_budget=self.token_budget,
        )

    def _update(
        self, supervision: Supervision, own: slice, rows: Tensor, comparison: DistributionComparison | None
    ) -> dict[str, float]:
        """Make one optimizer step on some global rows, of which this rank computes a part; return what it came to."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        batch = supervision.batch
        shares = torch.zeros(batch.tokens.shape, dtype=torch.float64, device=rows.device)
        shares[rows] = loss_fractions(batch.response_mask[rows], self.method.reduction)
        loss = torch.zeros((), dtype=torch.float64, device=rows.device)
        entropy = supervision.targets is None and "student_entropy" in self.requires
        settings = {"temperature": batch.sampling.temperature, "entropy": entropy}
        for micro in micro_batches(batch, shares, own, rows, self.token_budget, comparison):
            scores = self.student(micro.tokens, micro.response_mask, comparison=micro.comparison, **settings)
            old_logprobs, targets = supervision.of(micro.rows, scores)
            divergence, clip_ratio = scores.comparisons.get("divergence"), self.method.clip_ratio
            share = fire_loss(scores.logprobs, old_logprobs, targets, micro.shares, clip_ratio, divergence)
            # Gradients are averaged over processes, but this is one part of a sum.
            self.manual_backward(share * collectives.world_size())
            loss += share.detach()
        loss = collectives.all_reduce_sum(loss)
        norm = collectives.full_tensor(
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.gradient_clip or torch.inf)
        )
        if loss.isfinite() and norm.isfinite():
            optimizer.step()
            self.policy_version += 1
            scheduler: Any = self.lr_schedulers()
            if scheduler is not None:
                scheduler.step()
        optimizer.zero_grad()  # the memory is wanted for the next rollout
        return {"train/loss": loss.item(), "train/grad_norm": norm.item()}

    def _log_step(self, batch: ScoredBatch, targets: Targets, steps: list[dict[str, float]], watch: Stopwatch) -> None:
        optimizer: Any = self.optimizers()
        own = {"train/learning_rate": optimizer.param_groups[0]["lr"], "train/skipped_steps": float(self.skipped_steps)}
        own |= {name: sum(step[name] for step in steps) / len(steps) for name in (steps[0] if steps else ())}
        self.log_dict(own | step_diagnostics(batch, targets) | speed(batch, watch.seconds))

    def on_validation_epoch_start(self) -> None:
        """Forget earlier validations."""
        self.validation = ValidationMetrics(self.data.tasks).to(self.device)

    def validation_step(self, rollouts: RolloutBatch, batch_idx: int) -> None:
        """Take in graded rollouts of held-out prompts."""
        self.validation.update(rollouts)

    def on_validation_epoch_end(self) -> None:
        """Log avg@k, pass@k, maj@k, finish rate and length of each task."""
        results = self.validation.compute()
        self.validated = (self.policy_version, results)
        self.log_dict({f"val/{name}": value for name, value in results.items()})
        average = [value for name, value in results.items() if name.endswith("/avg_at_k")]
        self.log("val/avg_at_k", sum(average) / len(average))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counters and the state of strategies that have one."""
        counters = {"policy_version": self.policy_version, "skipped_steps": self.skipped_steps}
        strategies = strategy_state.state_of(self.method.strategies)
        checkpoint["fireopd"] = counters | {"strategies": strategies, "student": self.student_name}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the counters and the states back."""
        saved = checkpoint["fireopd"]
        self.policy_version, self.skipped_steps = saved["policy_version"], saved["skipped_steps"]
        strategy_state.load_state(self.method.strategies, saved["strategies"])

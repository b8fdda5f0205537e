"""Lightning module of the training step: rollouts -> scores -> targets -> loss -> optimizer step."""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch.nn import Parameter

from fireopd.algorithm import Normalization, Reduction
from fireopd.distributed import collectives
from fireopd.distributed.fsdp import Sharding
from fireopd.distributed.gather import gather_batch
from fireopd.filters import KeepAll, TrajectoryFilter
from fireopd.method import Method, Population
from fireopd.models.adapter import Adapter
from fireopd.models.attention import Attention
from fireopd.models.distributions import TeacherDistributions
from fireopd.models.fingerprint import fingerprint
from fireopd.models.kernels import Kernels
from fireopd.models.loading import Dtype
from fireopd.models.placement import placement_for
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer
from fireopd.models.student_versions import StudentVersions
from fireopd.models.weight_stream import WeightStream
from fireopd.objectives import Objective, ReverseKL
from fireopd.plans import BatchSummary
from fireopd.teachers import Teacher, deduplicate
from fireopd.training import run_state, skipped_steps
from fireopd.training.data import RolloutDataModule
from fireopd.training.micro_batches import updates
from fireopd.training.objective_divergence import divergence_comparison
from fireopd.training.optimizer_step import take_step
from fireopd.training.recorded_loader import current_rollouts
from fireopd.training.run_callbacks import run_callbacks
from fireopd.training.run_checks import check_run
from fireopd.training.run_plan import Budgets, ProcessPlan, RunPlan
from fireopd.training.run_summary import summary_line
from fireopd.training.score_batch import score_batch
from fireopd.training.step_metrics import step_metrics
from fireopd.training.stopwatch import Stopwatch
from fireopd.training.student import load_student, versions_of
from fireopd.training.update_targets import update_targets
from fireopd.training.validation import ValidatedModule
from fireopd.types import RolloutBatch, ScoredBatch
from fireopd.types.signals import JOINT, OF_STUDENT
from fireopd.weighters import TokenWeighter, UniformWeighter

__all__ = ["FiReOPDModule"]


class FiReOPDModule(ValidatedModule):
    """Lightning module that trains a student on its own rollouts with per-token supervision by frozen teachers.

    Args:
        teachers: teachers by the names that prompts use.
        student: model folder, hub name, or embedded model such as tiny/student.
        trajectory_filter: keeps or drops trajectories.
        token_weighter: weighs tokens.
        objective: computes the advantage of tokens, or a divergence of student and teacher.
        normalization: weights have mean 1 over each trajectory (paper), over the batch (released code), or none.
        reduction: the loss is a mean over kept tokens, or over kept trajectories of their token means.
        clip_ratio: clip of the surrogate; effective from the second update of the same rollout batch.
        importance_cap: cap of the importance weights between engine and trainer; null switches them off.
        population: trajectories that filter and weighter see together; micro_batch_of_one, as in the released scripts.
        optimizer: optimizer of the student's parameters.
        scheduler: scheduler of the learning rate, stepped after each optimizer step; null for a constant rate.
        gradient_clip: largest norm of the gradient; null for no limit.
        mini_batches: updates that a rollout batch is cut into.
        epochs: passes over a rollout batch.
        token_budget: tokens of a micro-batch of the student, padding included.
        chunk_logits: logits of the student held at once, tokens x vocabulary.
        kernels: torch, triton or liger (GPUs only): log-probabilities of the student, and its layers by liger.
        attn_implementation: attention of the student, for example flash_attention_2; null for transformers' choice.
        compile: compile the student's decoder layers (torch.compile).
        dtype: type of the student's parameters.
        adapter: adapter to train instead of all parameters, for example LoRA; null to train all.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        sharding: precision and offloading of student and teachers; all but offload_teachers require FSDP2Strategy.
        base: base model of the student, loaded if a strategy reads base_logprobs.
        top_k: number of most likely tokens for the top-k signals, such as topk_overlap and student_topk_mass.
        extra_signals: signals to compute for the curves; with a student signal, dropped trajectories are scored too.
        max_skipped_steps: skipped steps in a row (all trajectories dropped, or not finite) that end the run.

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
        kernels: Kernels = "torch",
        attn_implementation: Attention | None = None,
        compile: bool = False,
        dtype: Dtype = "float32",
        adapter: Adapter | None = None,
        gradient_checkpointing: bool = False,
        sharding: Sharding = Sharding(),  # noqa: B008 - frozen
        base: Teacher | None = None,
        top_k: int = 16,
        extra_signals: frozenset[str] = frozenset(),
        max_skipped_steps: int = 10,
    ) -> None:
        """Store the settings; `setup` loads the models."""
        super().__init__()
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if gradient_clip is not None and not gradient_clip > 0:
            raise ValueError(f"gradient_clip must be greater than 0, got {gradient_clip}; null for no limit")
        self.automatic_optimization = False
        parts = (trajectory_filter, token_weighter, objective)
        self.method = Method(*parts, normalization, reduction, clip_ratio, importance_cap, population)
        self.teachers = deduplicate(teachers)
        self.base = next((teacher for teacher in self.teachers.values() if teacher == base), base)
        self.student_name, self.dtype_name, self.sharding, self.top_k = student, dtype, sharding, top_k
        self.adapter, self.sharing = adapter, list[Teacher]()  # teachers that score with weights of the student
        self.strict_loading = adapter is None  # with an adapter, a state dict has no frozen tensors
        self.base_fingerprint: str | None = None  # of the student below its adapter
        computation = (kernels, gradient_checkpointing, attn_implementation, compile)
        self.budgets = Budgets(mini_batches, epochs, token_budget, chunk_logits, *computation)
        self.make_optimizer, self.make_scheduler, self.gradient_clip = optimizer, scheduler, gradient_clip
        self.extra_signals, self.max_skipped_steps = frozenset(extra_signals), max_skipped_steps
        self.settings: dict[str, Any] = {}  # those of the command line, see `run_settings`
        self.checked = self.resume_with_changes = self.fresh_optimizer = self.optimizer_changed = False
        self.skipped_steps = 0
        self.student: CausalScorer = None  # type: ignore[assignment] # until configure_model
        self.versions: StudentVersions = None  # type: ignore[assignment] # until configure_model

    def setup(self, stage: str) -> None:
        """Check the run, then load the teachers, and the base model if a strategy reads it."""
        plan = self.run_plan()
        if not self.checked:
            check_run(plan)
        if self.trainer.is_global_zero:
            rank_zero_info(summary_line(plan))
        for key, teacher in plan.frozen_models.items():
            if plan.shares_weights(teacher):
                self.sharing.append(teacher)
            else:
                rank_zero_info(f"Loading {key} ...")
                teacher.setup(key, self.device, placement_for(self.trainer.strategy, self.sharding, frozen=True))
        self.data.prepare(self.method, self.teachers, graded="rewards" in self.requires)

    def run_plan(self, data: RolloutDataModule | None = None) -> RunPlan:
        """Return the description of the run; `data` defaults to the data module of the trainer."""
        return RunPlan(
            student=self.student_name,
            dtype=self.dtype_name,
            teachers=self.teachers,
            base=self.base,
            method=self.method,
            signals=self.requires,
            distributions=self.needs_distributions,
            optimizer=self.make_optimizer,
            scheduler=self.make_scheduler,
            budgets=self.budgets,
            processes=ProcessPlan.of(self.trainer),
            data=(data or self.data).plan(),
            adapter=self.adapter,
            sharding=self.sharding,
            scores_student_first=self.scores_student_first,
        )

    def configure_model(self) -> None:
        """Load the student, once."""
        if self.student is not None:
            return
        rank_zero_info(f"Loading student {self.student_name} ...")
        placement = placement_for(self.trainer.strategy, self.sharding, frozen=False)
        self.student = load_student(self.student_name, self.dtype_name, self.budgets, placement, self.adapter)
        if self.adapter is not None:
            own = fingerprint(p for p in self.student.parameters() if not p.requires_grad)
            self.base_fingerprint = collectives.broadcast_object(own)  # only the first process may have all weights
        placement(self.student)
        self.versions = versions_of(self)
        self.averages = self.versions.averages  # part of the state

    def configure_optimizers(self) -> Any:
        """Return optimizer and scheduler of the student's parameters."""
        optimizer = self.make_optimizer(self.trained_parameters())
        if self.make_scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks of every run."""
        return run_callbacks(self.data)

    @property
    def requires(self) -> frozenset[str]:
        """Names of all signals to compute."""
        return self.method.requires | {"student_logprobs", "sampling_logprobs"} | self.extra_signals

    @property
    def scores_student_first(self) -> bool:
        """True if targets, updates or curves need the student's scores of the whole batch before the update."""
        return self.budgets.updates > 1 or self.method.scores_student_first or bool(self.extra_signals & OF_STUDENT)

    @property
    def needs_distributions(self) -> bool:
        """True if the distributions of student and teachers are compared."""
        return self.method.direct or bool(self.requires & JOINT)

    def student_weights(self) -> WeightStream:
        """Return the student's tensors, named as in the Hugging Face model."""
        return WeightStream(self.student.model, self.adapter)

    def trained_parameters(self) -> list[Parameter]:
        """Return the student's parameters, or those of its adapter."""
        return [parameter for parameter in self.student.parameters() if parameter.requires_grad]

    def state_dict(self, *args: Any, **settings: Any) -> dict[str, Any]:  # type: ignore[override] # overloads
        """Return the student's tensors, or those of its adapter, and the moving averages that teachers read."""
        state: dict[str, Any] = super().state_dict(*args, **settings)
        averages = {name: value for name, value in state.items() if name.startswith("averages.")}
        return state if self.adapter is None else self.adapter.trained(state) | averages

    def training_step(self, rollouts: RolloutBatch, batch_idx: int) -> dict[str, Any]:
        """Take the optimizer steps of one rollout batch; return the global batch and its targets."""
        allowed = self.data.allowed_staleness(self.budgets.updates)
        rollouts, staleness = current_rollouts(rollouts, self.policy_version, allowed)
        self.log("rollout/staleness", staleness)
        watch = Stopwatch(rollout=rollouts.seconds)
        with self.data.interrupts.sampling():
            scored, distributions = self.score(rollouts, watch)
        batch, own = gather_batch(scored)
        fault = skipped_steps.invalid_signal(batch, self.method.requires | {"student_logprobs", "sampling_logprobs"})
        method = self.method.at(batch.policy_version)
        targets = update_targets(self.method, batch, usable=fault is None, single=self.budgets.updates == 1)
        with watch("update"):
            comparison = divergence_comparison(method.objective, distributions)
            cuts = updates(targets.keep, self.budgets.mini_batches, self.budgets.epochs, seed=self.policy_version)
            steps = [take_step(self, targets, own, rows, comparison) for rows in cuts]
        batch, final = targets.complete()
        fault = fault or skipped_steps.invalid_signal(batch, self.method.requires & OF_STUDENT)
        fault = fault or skipped_steps.no_update(batch, final, steps, method.strategies)
        self.skipped_steps = self.skipped_steps + 1 if fault else 0
        if fault:
            skipped_steps.report(fault, self.skipped_steps, self.max_skipped_steps)
        optimizer: Any = self.optimizers()
        metrics = step_metrics(batch, final, steps, watch.seconds) | {"train/skipped_steps": float(self.skipped_steps)}
        metrics |= self.method.changes(batch.policy_version)
        self.log_dict(metrics | {"train/learning_rate": optimizer.param_groups[0]["lr"]})
        self.data.mark_learned(rollouts.number, BatchSummary.of(batch, final, self.data.engine.max_response_length))
        return {"batch": batch, "targets": final}

    def score(self, rollouts: RolloutBatch, watch: Stopwatch) -> tuple[ScoredBatch, TeacherDistributions | None]:
        """Score this rank's trajectories before the update; see `score_batch`."""
        student = self.student if self.scores_student_first else None
        settings: dict[str, Any] = {"signals": self.requires, "distributions": self.needs_distributions}
        settings |= {"top_k": self.top_k, "token_budget": self.budgets.token_budget}
        return score_batch(rollouts, student, self.teachers, self.base, watch, **settings)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add counters, the state of strategies and the settings."""
        checkpoint["fireopd"] = run_state.run_state(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore counters and the state of strategies."""
        run_state.restore(self, checkpoint)

    def on_train_start(self) -> None:
        """Apply changed settings of the optimizer to its restored state."""
        if self.optimizer_changed:
            run_state.apply_optimizer_settings(self)

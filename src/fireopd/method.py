"""Method: a filter, a weighter and an objective, with the settings that combine them."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from fireopd import algorithm
from fireopd.algorithm import Normalization, Reduction
from fireopd.filters import KeepAll, TrajectoryFilter
from fireopd.objectives import Objective, ReverseKL
from fireopd.types import Population, ScoredBatch, Targets, contracts, signals
from fireopd.types.strategy import Strategy, union
from fireopd.weighters import TokenWeighter, UniformWeighter

__all__ = ["Method", "Population"]


@dataclass(frozen=True)
class Method:
    """Computes the targets of scored batches. The defaults are plain on-policy distillation."""

    trajectory_filter: TrajectoryFilter = field(default_factory=KeepAll)
    """Keeps or drops trajectories."""
    token_weighter: TokenWeighter = field(default_factory=UniformWeighter)
    """Gives each token a weight."""
    objective: Objective = field(default_factory=ReverseKL)
    """Gives each token an advantage; a direct objective also defines a divergence."""
    normalization: Normalization = "trajectory"
    """Tokens over which the weights have mean 1: each trajectory (paper), the batch (released code), or none."""
    reduction: Reduction = "token"
    """The loss is a mean over kept tokens, or over kept trajectories of their token means."""
    clip_ratio: float = 0.2
    """Clip of the surrogate; effective from the second update on a rollout batch."""
    importance_cap: float | None = 5.0
    """Cap of the importance weights between engine and trainer; None disables them."""
    population: Population = "rollout_batch"
    """`micro_batch_of_one` reproduces the released scripts: filter and weighter see one trajectory at a time, so the
    filter never drops anything."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.clip_ratio > 0:
            raise ValueError(f"clip_ratio must be greater than 0, got {self.clip_ratio}")
        if self.importance_cap is not None and not self.importance_cap > 0:
            raise ValueError(f"importance_cap must be greater than 0, got {self.importance_cap}; null for none")

    @property
    def requires(self) -> frozenset[str]:
        """Signals required by filter, weighter and objective."""
        return union(self.strategies.values())

    @property
    def direct(self) -> bool:
        """True if the loss includes a divergence of student and teacher, at any step."""
        return self.objective.direct

    @property
    def strategies(self) -> dict[str, Strategy]:
        """Filter, weighter and objective by the names of their settings. They declare what they need at any step."""
        parts: dict[str, Strategy] = {
            "trajectory_filter": self.trajectory_filter,
            "token_weighter": self.token_weighter,
        }
        return {**parts, "objective": self.objective}

    @property
    def scores_student_first(self) -> bool:
        """True if the student must score the whole batch before its update, even with a single update.

        False if the filter needs no student signal, and weights and advantages depend on one trajectory at a time.
        """
        by_trajectory = self.population == "rollout_batch" and self.normalization != "batch"
        by_trajectory &= self.token_weighter.by_trajectory and self.objective.by_trajectory
        filter_needs_student = self.trajectory_filter.requires & signals.OF_STUDENT
        return not by_trajectory or bool(filter_needs_student | self.requires & signals.JOINT)

    def at(self, policy_version: int) -> "Method":
        """Return the method with the strategies that are in effect at an optimizer step."""
        return replace(self, **{name: part.at(policy_version) for name, part in self.strategies.items()})

    def changes(self, policy_version: int) -> dict[str, float]:
        """Return the values of scheduled settings and the numbers of phases at an optimizer step, by metric tag."""
        values = {name: part.changes(policy_version) for name, part in self.strategies.items()}
        return {f"schedule/{part}/{name}": value for part, own in values.items() for name, value in own.items()}

    def keep(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N], True for kept trajectories of a global batch.

        Student signals may be missing if `scores_student_first` is False.
        """
        return algorithm.kept(batch, self.trajectory_filter.at(batch.policy_version), self.population)

    def targets(self, batch: ScoredBatch, keep: Tensor | None = None) -> Targets:
        """Return the targets of a global batch, or of some of its rows if `scores_student_first` is False.

        Args:
            batch: n trajectories.
            keep: bool [n]. Mask from an earlier call of `keep`; None filters the batch first.
        """
        return algorithm.fire_targets(
            batch,
            self.keep(batch) if keep is None else keep,
            self.token_weighter.at(batch.policy_version),
            self.objective.at(batch.policy_version),
            normalization=self.normalization,
            importance_cap=self.importance_cap,
            population=self.population,
        )

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return the filter's reason for each trajectory of a global batch, a short text."""
        part, reasons = self.trajectory_filter.at(batch.policy_version), []
        for rows in batch.populations(self.population):
            reasons += contracts.checked_reasons(part, part.reasons(rows.view_for(part)), rows)
        return reasons

"""A method: one choice of filter, weighter and objective with the way they are put together."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from fireopd.algorithm import Normalization, Reduction, fire_targets, kept
from fireopd.filters import KeepAll, TrajectoryFilter
from fireopd.models.distributions import DistributionComparison, TeacherDistributions
from fireopd.objectives import DirectObjective, Objective, ReverseKL
from fireopd.types import ScoredBatch, contracts, signals
from fireopd.types.strategy import Strategy, union
from fireopd.types.targets import Targets
from fireopd.weighters import TokenWeighter, UniformWeighter

Population = Literal["rollout_batch", "micro_batch_of_one"]
"""What filter and weighter see together: all trajectories of a step, or, as in the released scripts, one at a time."""


@dataclass(frozen=True)
class Method:
    """What turns a scored batch into targets. The neutral one is plain on-policy distillation."""

    trajectory_filter: TrajectoryFilter = field(default_factory=KeepAll)
    """Keeps or drops trajectories."""
    token_weighter: TokenWeighter = field(default_factory=UniformWeighter)
    """Weighs tokens."""
    objective: Objective = field(default_factory=ReverseKL)
    """Gives tokens their advantage, states their divergence."""
    normalization: Normalization = "trajectory"
    """Over what the weights have mean 1: each trajectory (the paper), the batch (the released code), or none."""
    reduction: Reduction = "token"
    """The loss is a mean over kept tokens, or over kept trajectories of their token means."""
    clip_ratio: float = 0.2
    """Clip of the surrogate; acts from the second update on a rollout batch."""
    importance_cap: float | None = 5.0
    """Cap of the importance weights between engine and trainer; none switches them off."""
    population: Population = "rollout_batch"
    """`micro_batch_of_one` reproduces the released scripts: filter and weights see one trajectory at a time, and so the
    filter never drops anything."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.clip_ratio > 0:
            raise ValueError(f"clip_ratio must be greater than 0, got {self.clip_ratio}")
        if self.importance_cap is not None and not self.importance_cap > 0:
            raise ValueError(f"importance_cap must be greater than 0, got {self.importance_cap}; null for none")

    @property
    def requires(self) -> frozenset[str]:
        """The union of what its parts read."""
        return union([self.trajectory_filter, self.token_weighter, self.objective])

    @property
    def direct(self) -> bool:
        """Whether the loss has a divergence of distributions in it."""
        return isinstance(self.objective, DirectObjective)

    @property
    def strategies(self) -> dict[str, Strategy]:
        """Its parts by the names of their settings."""
        parts: dict[str, Strategy] = {
            "trajectory_filter": self.trajectory_filter,
            "token_weighter": self.token_weighter,
        }
        return {**parts, "objective": self.objective}

    def targets(self, batch: ScoredBatch) -> Targets:
        """Return the targets of a global batch."""
        if self.population == "rollout_batch":
            return self.targets_of(batch, self.keep(batch))
        rows = [batch.select([row]) for row in range(len(batch.teachers))]
        alone = Targets.of_rows([self.targets_of(row, self.keep(row)) for row in rows])
        whole = replace(self, token_weighter=UniformWeighter()).targets_of(batch, torch.ones_like(alone.keep))
        # The released code has its advantages from the whole batch, before it is cut.
        of_objective = {name: torch.where(alone.mask, value, 0.0) for name, value in whole.of_objective.items()}
        return replace(alone, **of_objective)

    def reasons(self, batch: ScoredBatch) -> list[str]:
        """Return by what the filter judges each trajectory of a global batch, in a few words for people."""
        part, rows = self.trajectory_filter, range(len(batch.teachers))
        seen = [batch] if self.population == "rollout_batch" else [batch.select([row]) for row in rows]
        return [x for own in seen for x in contracts.checked_reasons(part, part.reasons(own.seen_by(part)), own)]

    @property
    def scores_student_first(self) -> bool:
        """Whether the student has to read the whole batch before its update, even if there is only one update.

        It has not where the filter does without it, and all that follows looks at one trajectory at a time.
        """
        alone = self.population == "rollout_batch" and self.normalization != "batch"
        alone &= self.token_weighter.by_trajectory and self.objective.by_trajectory
        return not alone or bool(self.trajectory_filter.requires & signals.OF_STUDENT | self.requires & signals.JOINT)

    def keep(self, batch: ScoredBatch) -> Tensor:
        """Return bool [N]: which trajectories of a global batch are kept, which the student may not have read yet."""
        return kept(batch, self.trajectory_filter)

    def targets_of(self, batch: ScoredBatch, keep: Tensor) -> Targets:
        """Return the targets of trajectories that were filtered: a whole batch, or some, if not `scores_student_first`.

        Args:
            batch: n trajectories.
            keep: bool [n]. Those that the filter keeps.
        """
        return fire_targets(
            batch,
            keep,
            self.token_weighter,
            self.objective,
            normalization=self.normalization,
            importance_cap=self.importance_cap,
        )

    def comparison(self, distributions: TeacherDistributions | None) -> DistributionComparison | None:
        """Return what the update measures of the student and these teachers: a direct objective's divergence."""
        objective = self.objective
        if distributions is None or not isinstance(objective, DirectObjective):
            return None

        def measure(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
            """Return float [T] as `divergence`, of log-distributions [T, V], with its gradient."""
            divergence = objective.divergence(student, teacher)
            return {"divergence": contracts.checked_divergence(objective, divergence, student)}

        return DistributionComparison(distributions, measure)

"""Validation metrics of each task: avg@k, pass@k, maj@k, finish rate, accuracy of finished responses, length."""

from collections.abc import Iterable, Mapping
from math import isnan
from statistics import fmean

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torchmetrics import MeanMetric

from fireopd.types import RolloutBatch
from fireopd.verifiers.pass_at_k import majority, pass_at_k

__all__ = [
    "AverageAtK",
    "GroupMetric",
    "MajorityAtK",
    "PassAtK",
    "TaskMetrics",
    "ValidationMetrics",
    "validation_scalars",
]


class GroupMetric(MeanMetric):
    """Mean over prompts of a value computed from all responses to a prompt, reduced over processes."""

    def update_groups(self, rewards: Tensor, votes: Tensor, groups: Tensor) -> None:
        """Update with float32 [B] rewards and int64 [B] votes of complete groups."""
        for group in groups.unique():
            rows = groups == group
            answers = [None if vote < 0 else vote for vote in votes[rows].tolist()]
            self.update(self.of_group(rewards[rows].tolist(), answers))

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the value of one prompt from its n responses."""
        raise NotImplementedError


class AverageAtK(GroupMetric):
    """avg@k: mean reward of the k responses to a prompt."""

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the mean reward."""
        return fmean(rewards)


class PassAtK(GroupMetric):
    """pass@k: probability that at least one of k responses is right."""

    def __init__(self, k: int | None = None) -> None:
        """Store k; None for the number of responses."""
        super().__init__()
        self.k = k

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the unbiased estimate."""
        return pass_at_k(rewards, self.k or len(rewards))


class MajorityAtK(GroupMetric):
    """maj@k: reward of the most frequent answer of the k responses; the mean over answers that tie."""

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the reward of the majority answer."""
        return majority(rewards, answers)


class TaskMetrics(nn.Module):
    """All metrics of one task."""

    def __init__(self) -> None:
        """Create the metrics."""
        super().__init__()
        self.avg_at_k, self.pass_at_k, self.maj_at_k = AverageAtK(), PassAtK(), MajorityAtK()
        self.finished, self.length, self.accuracy_given_finish = MeanMetric(), MeanMetric(), MeanMetric()

    def update(self, batch: RolloutBatch) -> None:
        """Update with graded rollouts of this task."""
        if batch.rewards is None or batch.votes is None:
            raise ValueError("validation needs graded rollouts")
        for metric in (self.avg_at_k, self.pass_at_k, self.maj_at_k):
            metric.update_groups(batch.rewards, batch.votes, batch.groups)
        self.finished.update(batch.finished.float())
        self.accuracy_given_finish.update(batch.rewards, weight=batch.finished.float())
        self.length.update(batch.response_mask.sum(-1).float())

    def compute(self) -> dict[str, float]:
        """Return the values by name; `accuracy_given_finish` only if a response finished."""
        metrics: dict[str, MeanMetric] = {"avg_at_k": self.avg_at_k, "pass_at_k": self.pass_at_k}
        metrics |= {"maj_at_k": self.maj_at_k, "finished": self.finished, "length": self.length}
        metrics["accuracy_given_finish"] = self.accuracy_given_finish
        values = {name: metric.compute().item() for name, metric in metrics.items()}
        return {name: value for name, value in values.items() if not isnan(value)}


class ValidationMetrics(nn.Module):
    """Metrics of several tasks, by `<task>/<metric>`."""

    def __init__(self, tasks: Iterable[str]) -> None:
        """Create the metrics of all tasks, the same on every process."""
        super().__init__()
        self.parts = {task: TaskMetrics() for task in sorted(set(tasks))}
        self.modules_of_parts = nn.ModuleList(self.parts.values())

    def update(self, batch: RolloutBatch) -> None:
        """Update with graded rollouts of any of the tasks."""
        for task in sorted(set(batch.tasks)):
            rows = [row for row, name in enumerate(batch.tasks) if name == task]
            self.parts[task].update(batch.select(torch.tensor(rows, device=batch.tokens.device)))

    def compute(self) -> dict[str, float]:
        """Return the values by `<task>/<metric>`, and log the tasks without any reward."""
        results = {
            f"{task}/{name}": value for task, part in self.parts.items() for name, value in part.compute().items()
        }
        for task in self.parts:
            if results[f"{task}/avg_at_k"] == 0:
                problem = f"Warning: all responses to the validation prompts of {task} have the reward 0. If they look"
                rank_zero_info(f"{problem} right, check the verifier, for example the marker of FinalAnswer")
        return results


def validation_scalars(results: Mapping[str, float]) -> dict[str, float]:
    """Return scalars by tag: the values of all tasks, and the mean of avg@k over tasks."""
    averages = [value for name, value in results.items() if name.endswith("/avg_at_k")]
    scalars = {f"val/{name}": value for name, value in results.items()}
    return scalars | {"val/avg_at_k": sum(averages) / len(averages)}

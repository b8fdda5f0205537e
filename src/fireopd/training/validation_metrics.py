"""Metrics of each task: avg@k, pass@k, maj@k over the responses to a prompt; finish rate, accuracy of those, length."""

from collections.abc import Iterable
from math import isnan
from statistics import fmean

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from fireopd.types import RolloutBatch
from fireopd.verifiers.pass_at_k import majority, pass_at_k


class GroupMetric(MeanMetric):
    """A mean over prompts of something computed from all responses to the prompt; reduces over processes."""

    def update_groups(self, rewards: Tensor, votes: Tensor, groups: Tensor) -> None:
        """Take in float32 [B] rewards and int64 [B] votes of whole groups."""
        for group in groups.unique():
            rows = groups == group
            answers = [None if vote < 0 else vote for vote in votes[rows].tolist()]
            self.update(self.of_group(rewards[rows].tolist(), answers))

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the value of one prompt's n responses."""
        raise NotImplementedError


class AverageAtK(GroupMetric):
    """avg@k: the mean reward of a prompt's k responses."""

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the mean."""
        return fmean(rewards)


class PassAtK(GroupMetric):
    """pass@k: the chance that at least one of k responses is right."""

    def __init__(self, k: int | None = None) -> None:
        """Store k; None for as many as there are responses."""
        super().__init__()
        self.k = k

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the estimate."""
        return pass_at_k(rewards, self.k or len(rewards))


class MajorityAtK(GroupMetric):
    """maj@k: the reward of the answer that most of the k responses come to; where several tie, their mean."""

    def of_group(self, rewards: list[float], answers: list[int | None]) -> float:
        """Return the reward."""
        return majority(rewards, answers)


class TaskMetrics(nn.Module):
    """All metrics of one task, by name."""

    def __init__(self) -> None:
        """Make the metrics."""
        super().__init__()
        self.avg_at_k, self.pass_at_k, self.maj_at_k = AverageAtK(), PassAtK(), MajorityAtK()
        self.finished, self.length, self.accuracy_given_finish = MeanMetric(), MeanMetric(), MeanMetric()

    def update(self, batch: RolloutBatch) -> None:
        """Take in graded rollouts of this task."""
        if batch.rewards is None or batch.votes is None:
            raise ValueError("validation needs graded rollouts")
        for metric in (self.avg_at_k, self.pass_at_k, self.maj_at_k):
            metric.update_groups(batch.rewards, batch.votes, batch.groups)
        self.finished.update(batch.finished.float())
        self.accuracy_given_finish.update(batch.rewards, weight=batch.finished.float())
        self.length.update(batch.response_mask.sum(-1).float())

    def compute(self) -> dict[str, float]:
        """Return the values by name; `accuracy_given_finish` only where a response was finished."""
        metrics: dict[str, MeanMetric] = {"avg_at_k": self.avg_at_k, "pass_at_k": self.pass_at_k}
        metrics |= {"maj_at_k": self.maj_at_k, "finished": self.finished, "length": self.length}
        metrics["accuracy_given_finish"] = self.accuracy_given_finish
        values = {name: metric.compute().item() for name, metric in metrics.items()}
        return {name: value for name, value in values.items() if not isnan(value)}


class ValidationMetrics(nn.Module):
    """The metrics of several tasks, by `<task>/<metric>`."""

    def __init__(self, tasks: Iterable[str]) -> None:
        """Make the metrics. Every process names all tasks, though it may see rows of some of them only."""
        super().__init__()
        self.parts = {task: TaskMetrics() for task in sorted(set(tasks))}
        self.modules_of_parts = nn.ModuleList(self.parts.values())

    def update(self, batch: RolloutBatch) -> None:
        """Take in graded rollouts of any of the tasks."""
        for task in sorted(set(batch.tasks)):
            rows = [row for row, name in enumerate(batch.tasks) if name == task]
            self.parts[task].update(batch.select(torch.tensor(rows, device=batch.tokens.device)))

    def compute(self) -> dict[str, float]:
        """Return the values."""
        return {f"{task}/{name}": value for task, part in self.parts.items() for name, value in part.compute().items()}

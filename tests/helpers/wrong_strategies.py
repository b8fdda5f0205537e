"""Strategies that each violate one rule of their contract, in ways that are easy to miss."""

from dataclasses import dataclass, field
from typing import Any

import torch

from fireopd import Objective, TokenWeighter, TrajectoryFilter, reductions


@dataclass(frozen=True)
class ReadsPadding(TokenWeighter):
    """Takes a mean over prompt and padding."""

    requires = frozenset({"student_entropy"})

    def __call__(self, batch):
        return (batch.student_entropy / batch.student_entropy.mean().clamp(min=0.1)).abs()


@dataclass(frozen=True)
class CountsColumns(TokenWeighter):
    def __call__(self, batch):
        width = batch.tokens.shape[1]
        return (torch.arange(1, width + 1) / width).expand(batch.tokens.shape)


@dataclass(frozen=True)
class LeaksGradient(Objective):
    requires = frozenset({"teacher_logprobs", "student_logprobs"})

    def advantage(self, batch):
        with torch.enable_grad():
            return batch.teacher_logprobs - batch.student_logprobs


@dataclass(frozen=True)
class DependsOnOrder(TrajectoryFilter):
    """Keeps the first of each group."""

    def __call__(self, batch):
        seen: set[int] = set()
        return torch.tensor([not (group in seen or seen.add(group)) for group in batch.groups.tolist()])


@dataclass(frozen=True)
class ClaimsByTrajectory(TokenWeighter):
    """Compares each trajectory with the longest of the batch."""

    by_trajectory = True

    def __call__(self, batch):
        return (batch.lengths / batch.lengths.max().clamp(min=1))[:, None].expand(batch.tokens.shape).clone()


@dataclass(frozen=True)
class ReadsUndeclared(TokenWeighter):
    requires = frozenset({"student_entropy"})

    def __call__(self, batch):
        return batch.student_entropy + batch.teacher_entropy


@dataclass(frozen=True)
class ReadsUndeclaredLate(TokenWeighter):
    """Reads an undeclared signal only later in the schedule."""

    def __call__(self, batch):
        return batch.teacher_entropy if batch.policy_version > 50 else torch.ones(batch.tokens.shape)


@dataclass(frozen=True)
class NegativeWeight(TokenWeighter):
    requires = frozenset({"teacher_logprobs", "student_logprobs"})

    def __call__(self, batch):
        return batch.teacher_logprobs - batch.student_logprobs


@dataclass(frozen=True)
class NanOnOneToken(TokenWeighter):
    """The standard deviation of one number is NaN."""

    requires = frozenset({"student_entropy"})

    def __call__(self, batch):
        return torch.ones(batch.tokens.shape) * batch.student_entropy[batch.response_mask].std().clamp(min=1e-6)


@dataclass(frozen=True)
class WrongShape(TokenWeighter):
    def __call__(self, batch):
        return batch.lengths.float()


@dataclass(frozen=True)
class WrongType(TrajectoryFilter):
    def __call__(self, batch):
        return (batch.lengths > 3).float()


@dataclass(frozen=True)
class HiddenState(TokenWeighter):
    """Divides by the largest entropy of all batches of the instance."""

    requires = frozenset({"student_entropy"})
    peak: list[float] = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(self, batch):
        self.peak.append(max(1e-3, torch.where(batch.response_mask, batch.student_entropy, 0.0).max().item()))
        return batch.student_entropy / max(self.peak)


PEAKS: list[float] = []


@dataclass(frozen=True)
class GlobalStatistics(TokenWeighter):
    """Accumulates statistics over supposed micro-batches."""

    requires = frozenset({"student_entropy"})

    def __call__(self, batch):
        PEAKS.append(max(1e-3, torch.where(batch.response_mask, batch.student_entropy, 0.0).max().item()))
        return batch.student_entropy / max(PEAKS)


@dataclass(frozen=True)
class UsesGlobalRandomness(TrajectoryFilter):
    def __call__(self, batch):
        return torch.rand(len(batch.finished)) < 0.5


@dataclass(frozen=True)
class ModifiesItsInput(TokenWeighter):
    requires = frozenset({"student_entropy"})

    def __call__(self, batch):
        return batch.student_entropy.mul_(2)


@dataclass(frozen=True)
class NotPicklable(TokenWeighter):
    shape: Any = lambda values: values

    def __call__(self, batch):
        return torch.ones(batch.tokens.shape)


@dataclass(frozen=True)
class MutableDefault(TokenWeighter):
    scale: torch.Tensor = torch.ones(())  # noqa: RUF009

    def __call__(self, batch):
        return torch.ones(batch.tokens.shape) * self.scale


@dataclass
class NotFrozen(TrajectoryFilter):
    def __call__(self, batch):
        return batch.finished


@dataclass(frozen=True)
class ForgetsItsState(TokenWeighter):
    """Counts its calls without saving the count."""

    calls: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, batch):
        self.calls["n"] = self.calls.get("n", 0) + 1
        return torch.full(batch.tokens.shape, float(self.calls["n"]))

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


@dataclass(frozen=True)
class Misspelt(TokenWeighter):
    requires = frozenset({"teacher_entropi"})

    def __call__(self, batch):
        return torch.ones(batch.tokens.shape)


@dataclass(frozen=True)
class SettingIsChanged(TokenWeighter):
    """Changes a setting on construction."""

    power: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "power", self.power * 2)

    def __call__(self, batch):
        return torch.ones(batch.tokens.shape)


@dataclass(frozen=True)
class Overflows(Objective):
    requires = frozenset({"teacher_logprobs", "student_logprobs"})

    def advantage(self, batch):
        return (batch.teacher_logprobs - batch.student_logprobs).exp()


@dataclass(frozen=True)
class Crashes(TrajectoryFilter):
    def __call__(self, batch):
        return batch.lengths > self.limit


@dataclass(frozen=True)
class HidesGroups(Objective):
    """Compares rewards within groups without declaring it."""

    requires = frozenset({"rewards"})

    def advantage(self, batch):
        return reductions.standardized(batch.rewards, batch.groups)[:, None].expand(batch.tokens.shape).contiguous()

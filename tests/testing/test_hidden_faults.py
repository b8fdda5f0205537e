"""Faults that are easy to miss: each is found, or warned of where it may be legal; legal oddities pass."""

import random
import re
import warnings
from dataclasses import dataclass
from enum import Enum

import pytest
import torch

from fireopd.objectives import DirectObjective
from fireopd.reductions import kl
from fireopd.testing import ConformanceWarning, check_objective, check_weighter
from fireopd.types import ScoredBatch
from fireopd.weighters import TokenWeighter


@dataclass(frozen=True)
class ClampsInPlace(DirectObjective):
    def divergence(self, student, teacher):
        return kl(student, teacher.clamp_(min=-20))


@dataclass(frozen=True)
class Weighter(TokenWeighter):
    requires = frozenset({"student_entropy", "teacher_logprobs"})

    def __call__(self, batch: ScoredBatch):
        return self.weight(batch, torch.where(batch.response_mask, batch.student_entropy, 0.0))


@dataclass(frozen=True)
class ClampsSignalInPlace(Weighter):
    def weight(self, batch, entropy):
        batch.teacher_logprobs.clamp_(min=-20)
        return entropy


@dataclass(frozen=True)
class ZeroesInPlace(Weighter):
    def weight(self, batch, entropy):
        batch.teacher_logprobs[~batch.response_mask] = 0
        return entropy


@dataclass(frozen=True)
class BreaksTiesByPlace(Weighter):
    """Weight 1 for the better half of the rows."""

    def weight(self, batch, entropy):
        rank = entropy.amax(-1).argsort(stable=True).argsort(stable=True)
        return (rank >= len(rank) // 2).float()[:, None].expand(entropy.shape).clone()


@dataclass(frozen=True)
class CountsEmptyRows(Weighter):
    def weight(self, batch, entropy):
        means = entropy.sum(-1) / batch.lengths.clamp(min=1)
        return entropy / means.mean().clamp(min=0.1)


@dataclass(frozen=True)
class ReadsGroupNumber(Weighter):
    def weight(self, batch, entropy):
        return entropy * (1 + batch.groups % 2)[:, None]


@dataclass(frozen=True)
class NegativeLate(Weighter):
    def weight(self, batch, entropy):
        return (1 - batch.policy_version / 225) * entropy


@dataclass(frozen=True)
class SameDrawsInEveryStep(Weighter):
    def weight(self, batch, entropy):
        draws = torch.rand(1, generator=torch.Generator().manual_seed(7))
        return entropy * draws


@dataclass(frozen=True)
class SumsInHalf(Weighter):
    def weight(self, batch, entropy):
        return entropy / entropy.half().sum().float().clamp(min=1)


@dataclass(frozen=True)
class RarelyRandom(Weighter):
    def weight(self, batch, entropy):
        return entropy * 2 if random.random() < 1e-9 else entropy


@dataclass(frozen=True)
class Negated(DirectObjective):
    def divergence(self, student, teacher):
        return -kl(student, teacher)


@dataclass(frozen=True)
class Constant(DirectObjective):
    """Its gradient is rounding errors."""

    def divergence(self, student, teacher):
        return (student.exp().sum(-1) - 1).abs()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Negated(), "must be >= 0"),
        (Constant(), "has a gradient of 0 everywhere"),
        (ClampsInPlace(), "modifies its input distributions"),
        (ClampsSignalInPlace(), r"modifies its batch \(teacher_logprobs\)"),
        (ZeroesInPlace(), r"modifies its batch \(teacher_logprobs\)"),
        (BreaksTiesByPlace(), "depends on the order of rows"),
        (CountsEmptyRows(), "depends on trajectories with an empty response"),
        (ReadsGroupNumber(), "depends on the numbers in batch.groups"),
        (NegativeLate(), "returns the value -.* in step 250"),
        (SameDrawsInEveryStep(), "draws the same random numbers in every step"),
        (SumsInHalf(), "computes in torch.float16"),
        (RarelyRandom(), "draws from random's global generator"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_hidden_fault_is_found(strategy, message):
    check = check_objective if isinstance(strategy, DirectObjective) else check_weighter
    with pytest.raises(AssertionError) as found:
        check(strategy)
    assert re.search(message, " ".join(str(found.value).split())), found.value


@dataclass(frozen=True)
class ShiftsByOne(Weighter):
    def weight(self, batch, entropy):
        return torch.where(batch.response_mask, entropy.roll(-1, -1), 0.0)


@dataclass(frozen=True)
class CountsFromThePrompt(TokenWeighter):
    def __call__(self, batch):
        return 1.0 / torch.arange(1, batch.tokens.shape[1] + 1).expand(batch.tokens.shape)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (ShiftsByOne(), "but for the token before it: index t of every signal is about token t"),
        (CountsFromThePrompt(), "it counts positions from the start of the prompt"),
    ],
)
def test_a_suspicious_alignment_is_a_warning(strategy, message):
    with pytest.warns(ConformanceWarning, match=message):
        check_weighter(strategy)


@dataclass(frozen=True)
class DoubleWeights(Weighter):
    def weight(self, batch, entropy):
        return entropy.double()


class Side(Enum):
    STUDENT = "student"
    TEACHER = "teacher"


@dataclass(frozen=True)
class ByEnum(TokenWeighter):
    side: Side = Side.TEACHER
    requires = frozenset({"student_entropy", "teacher_entropy"})

    def __call__(self, batch):
        return batch.student_entropy if self.side is Side.STUDENT else batch.teacher_entropy


@dataclass(frozen=True)
class TeacherTop4(DirectObjective):
    """Forward KL on the teacher's top 4 tokens: a partial sum by design."""

    proper = False

    def divergence(self, student, teacher):
        top = teacher.topk(4).indices
        own, other = student.gather(-1, top), teacher.gather(-1, top)
        return (other.exp() * (other - own)).sum(-1)


@dataclass(frozen=True)
class ForgivenNats(DirectObjective):
    def divergence(self, student, teacher):
        return (kl(student, teacher) - 0.1).clamp(min=0)


@pytest.mark.parametrize("strategy", [DoubleWeights(), ByEnum(Side.STUDENT), TeacherTop4(), ForgivenNats()], ids=str)
def test_legal_oddities_pass_without_a_warning(strategy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_objective(strategy) if isinstance(strategy, DirectObjective) else check_weighter(strategy)

"""Objectives: the base classes in `base.py`, one family of methods per file."""

from fireopd.objectives.acceptance import AcceptedReverseKL
from fireopd.objectives.base import DirectObjective, Objective
from fireopd.objectives.base_model import BaselinedReverseKL, ExtrapolatedReverseKL
from fireopd.objectives.divergence import GeneralizedJSD, SkewKL
from fireopd.objectives.entropy_penalty import EntropyRankedPenalty
from fireopd.objectives.gated_kl import EntropyGatedKL, SignGatedKL
from fireopd.objectives.log_ratio import (
    ClippedReverseKL,
    FixedPenalty,
    FlooredReverseKL,
    PowerDifference,
    ReverseKL,
    SoftLogRatio,
)
from fireopd.objectives.outcome_weighting import DualPathReverseKL, OutcomeAlignedReverseKL
from fireopd.objectives.return_to_go import BoundedReturnToGo, ReturnToGo, SingleStepReturnToGo
from fireopd.objectives.reward import CreditedReverseKL, GroupRewardReverseKL, MarginReverseKL, VerdictGatedReverseKL
from fireopd.objectives.schedule import ObjectiveSequence, ScheduledObjective
from fireopd.objectives.sign_consistency import SignConsistentReverseKL
from fireopd.objectives.tail_residual import TailResidualKL
from fireopd.objectives.teacher_scale import TeacherScaledReverseKL
from fireopd.objectives.topk_divergence import TopKDivergence, TopKPolicyGradient

__all__ = [
    "AcceptedReverseKL",
    "BaselinedReverseKL",
    "BoundedReturnToGo",
    "ClippedReverseKL",
    "CreditedReverseKL",
    "DirectObjective",
    "DualPathReverseKL",
    "EntropyGatedKL",
    "EntropyRankedPenalty",
    "ExtrapolatedReverseKL",
    "FixedPenalty",
    "FlooredReverseKL",
    "GeneralizedJSD",
    "GroupRewardReverseKL",
    "MarginReverseKL",
    "Objective",
    "ObjectiveSequence",
    "OutcomeAlignedReverseKL",
    "PowerDifference",
    "ReturnToGo",
    "ReverseKL",
    "ScheduledObjective",
    "SignConsistentReverseKL",
    "SignGatedKL",
    "SingleStepReturnToGo",
    "SkewKL",
    "SoftLogRatio",
    "TailResidualKL",
    "TeacherScaledReverseKL",
    "TopKDivergence",
    "TopKPolicyGradient",
    "VerdictGatedReverseKL",
]

"""Objectives: the base classes in `base.py`, one family of methods per file."""

from fireopd.objectives.base import DirectObjective, Objective
from fireopd.objectives.base_model import BaselinedReverseKL, ExtrapolatedReverseKL
from fireopd.objectives.divergence import GeneralizedJSD, SkewKL
from fireopd.objectives.gated_kl import EntropyGatedKL, SignGatedKL
from fireopd.objectives.log_ratio import (
    ClippedReverseKL,
    FixedPenalty,
    FlooredReverseKL,
    PowerDifference,
    ReverseKL,
    SoftLogRatio,
)
from fireopd.objectives.reward import CreditedReverseKL, GroupRewardReverseKL, MarginReverseKL, VerdictGatedReverseKL
from fireopd.objectives.topk_divergence import TopKDivergence, TopKPolicyGradient

__all__ = [
    "BaselinedReverseKL",
    "ClippedReverseKL",
    "CreditedReverseKL",
    "DirectObjective",
    "EntropyGatedKL",
    "ExtrapolatedReverseKL",
    "FixedPenalty",
    "FlooredReverseKL",
    "GeneralizedJSD",
    "GroupRewardReverseKL",
    "MarginReverseKL",
    "Objective",
    "PowerDifference",
    "ReverseKL",
    "SignGatedKL",
    "SkewKL",
    "SoftLogRatio",
    "TopKDivergence",
    "TopKPolicyGradient",
    "VerdictGatedReverseKL",
]

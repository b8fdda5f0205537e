"""Objectives, `base.py` first; one family of methods in each of the other files."""

from fireopd.objectives.base import DirectObjective, Objective
from fireopd.objectives.divergences import GeneralizedJSD, SkewKL
from fireopd.objectives.gates import EntropyGatedKL, SignGatedKL
from fireopd.objectives.log_ratios import (
    ClippedReverseKL,
    FixedPenalty,
    FlooredReverseKL,
    PowerDifference,
    ReverseKL,
    SoftLogRatio,
)
from fireopd.objectives.references import BaselinedReverseKL, ExtrapolatedReverseKL
from fireopd.objectives.supports import TopKDivergence
from fireopd.objectives.verdicts import (
    CreditedReverseKL,
    GroupRewardReverseKL,
    MarginReverseKL,
    VerdictGatedReverseKL,
)

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
    "VerdictGatedReverseKL",
]

"""Rollout plans: the base class in `base.py`, one family per file. Entry-point group: `fireopd.plans`."""

from fireopd.plans.adaptive_length import AdaptiveLength
from fireopd.plans.base import RolloutPlan
from fireopd.plans.fixed import FixedPlan
from fireopd.plans.prefix import SolutionPrefix, TeacherPrefix
from fireopd.plans.refine import Refine
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.plans.short import ShortRollouts
from fireopd.plans.summary import BatchSummary
from fireopd.plans.teacher_mix import TeacherMix, VerifiedTeacherMix

__all__ = [
    "AdaptiveLength",
    "BatchSummary",
    "Draft",
    "FixedPlan",
    "Refine",
    "RolloutContext",
    "RolloutPlan",
    "RowPlan",
    "ShortRollouts",
    "SolutionPrefix",
    "TeacherMix",
    "TeacherPrefix",
    "VerifiedTeacherMix",
]

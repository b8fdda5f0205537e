"""Trajectory filters: the base class in `base.py`, one family of methods per file."""

from fireopd.filters.base import KeepAll, TrajectoryFilter
from fireopd.filters.composition import AllOf
from fireopd.filters.length import LengthFilter
from fireopd.filters.margin import MarginFilter
from fireopd.filters.reward import AgreementFilter, BalanceFilter, VerdictFilter
from fireopd.filters.schedule import FilterSequence, ScheduledFilter
from fireopd.filters.surprise import SurpriseFilter
from fireopd.filters.teacher_likelihood import TeacherLikelihoodFilter

__all__ = [
    "AgreementFilter",
    "AllOf",
    "BalanceFilter",
    "FilterSequence",
    "KeepAll",
    "LengthFilter",
    "MarginFilter",
    "ScheduledFilter",
    "SurpriseFilter",
    "TeacherLikelihoodFilter",
    "TrajectoryFilter",
    "VerdictFilter",
]

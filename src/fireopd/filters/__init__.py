"""Trajectory filters, `base.py` first; one family of methods in each of the other files."""

from fireopd.filters.base import KeepAll, TrajectoryFilter
from fireopd.filters.compositions import AllOf
from fireopd.filters.lengths import LengthFilter
from fireopd.filters.likelihoods import TeacherLikelihoodFilter
from fireopd.filters.margins import MarginFilter
from fireopd.filters.verdicts import AgreementFilter, BalanceFilter, VerdictFilter

__all__ = [
    "AgreementFilter",
    "AllOf",
    "BalanceFilter",
    "KeepAll",
    "LengthFilter",
    "MarginFilter",
    "TeacherLikelihoodFilter",
    "TrajectoryFilter",
    "VerdictFilter",
]

"""Trajectory filters, `base.py` first; one family of methods in each of the other files."""

from fireopd.filters.base import KeepAll, TrajectoryFilter
from fireopd.filters.compositions import AllOf
from fireopd.filters.lengths import LengthFilter
from fireopd.filters.likelihoods import TeacherLikelihoodFilter

__all__ = ["AllOf", "KeepAll", "LengthFilter", "TeacherLikelihoodFilter", "TrajectoryFilter"]

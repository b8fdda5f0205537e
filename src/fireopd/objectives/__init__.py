"""Objectives, `base.py` first; one family of methods in each of the other files."""

from fireopd.objectives.base import DirectObjective, Objective
from fireopd.objectives.log_ratios import ReverseKL

__all__ = ["DirectObjective", "Objective", "ReverseKL"]

"""Looking at trajectories: one page that shows each token with what student, teachers and method say of it."""

from fireopd.analysis.view.page import Page
from fireopd.analysis.view.trajectory_view import View, spread

__all__ = ["Page", "View", "spread"]

"""Looking at trajectories: one page that shows each token with what student, teachers and method say of it."""

from fireopd.views.pages import Page
from fireopd.views.trajectories import View, spread

__all__ = ["Page", "View", "spread"]

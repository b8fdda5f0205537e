"""Trajectory viewer: a list with the values of student, teachers and method for each token, in an HTML page."""

from fireopd.analysis.view.trajectory_list import TrajectoryList
from fireopd.analysis.view.trajectory_view import View, select_rows

__all__ = ["TrajectoryList", "View", "select_rows"]

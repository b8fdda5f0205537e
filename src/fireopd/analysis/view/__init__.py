"""Trajectory viewer: an HTML page with the values of student, teachers and method for each token."""

from fireopd.analysis.view.page import Page
from fireopd.analysis.view.trajectory_view import View, select_rows

__all__ = ["Page", "View", "select_rows"]

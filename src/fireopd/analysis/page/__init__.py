"""Self-contained HTML pages: one layout for trajectories, runs and comparisons."""

from fireopd.analysis.page.page import Page, Section
from fireopd.analysis.page.parts import figure, tables

__all__ = ["Page", "Section", "figure", "tables"]

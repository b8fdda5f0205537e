"""Report of a run: one HTML page from the files of its folder."""

from fireopd.analysis.report.run_report import run_report

__all__ = ["run_report"]

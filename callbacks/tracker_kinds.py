"""Forms of histograms, texts, tables and pages in TensorBoard, W&B, MLflow and Trackio."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from torch import Tensor

from fireopd.analysis.tables import Table
from fireopd.atomic_files import appending
from fireopd.training.run_layout import WARNINGS

__all__ = ["MLFlowMedia", "Media", "RunFolderMedia", "TensorBoardMedia", "TrackioMedia", "WandbMedia"]

BINS = 64
"""Bins of a histogram."""
Rows = Sequence[Mapping[str, Any]]
"""Rows of a table, with the same columns."""


class Media:
    """Output of a logger in addition to scalars. This base class shows nothing.

    Args:
        logger: logger of the run, on rank 0.
    """

    def __init__(self, logger: Logger) -> None:
        """Store the logger."""
        self.logger: Any = logger

    def layout(self, chapters: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay out a page of charts, by chapter and title."""

    def histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Show the distribution of finite values, float [N] on the CPU, by tag."""

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Show a text in Markdown."""

    def warning(self, text: str, step: int) -> None:
        """Show a warning about the run."""
        self.text("health", text, step)

    def table(self, tag: str, rows: Rows, step: int) -> None:
        """Show a table."""

    def page(self, tag: str, file: Path, step: int) -> None:
        """Show a self-contained HTML page."""


class RunFolderMedia(Media):
    """Warnings in a file of the run folder, whatever the other loggers are."""

    def warning(self, text: str, step: int) -> None:
        """Append the warning to `warnings.jsonl`."""
        with appending(Path(self.logger.log_dir) / WARNINGS) as file:
            file.write((json.dumps({"step": step, "warning": text}) + "\n").encode())


class TensorBoardMedia(Media):
    """Histograms, texts and the custom-scalars page of TensorBoard, which cannot show HTML."""

    def layout(self, chapters: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay out the custom-scalars page."""
        self.logger.experiment.add_custom_scalars(chapters)

    def histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Add histograms."""
        for tag, distribution in values.items():
            self.logger.experiment.add_histogram(tag, distribution, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Add a text."""
        self.logger.experiment.add_text(tag, markdown, step)

    def table(self, tag: str, rows: Rows, step: int) -> None:
        """Add the table as a text."""
        self.text(tag, markdown(tag, rows), step)


class WandbMedia(Media):
    """Histograms, HTML, tables and alerts of W&B, over the step of the trainer as the scalars."""

    def _log(self, values: dict[str, Any], step: int) -> None:
        self.logger.experiment.log(values | {"trainer/global_step": step})

    def histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Log histograms."""
        wandb = import_module("wandb")
        counted = {tag: np.histogram(distribution.numpy(), BINS) for tag, distribution in values.items()}
        self._log({tag: wandb.Histogram(np_histogram=pair) for tag, pair in counted.items()}, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Log a text as HTML with its line breaks and blanks."""
        self._log({tag: import_module("wandb").Html(f"<pre>{html.escape(markdown)}</pre>")}, step)

    def warning(self, text: str, step: int) -> None:
        """Send an alert, which W&B also mails to those who ask for it, and log the text."""
        self.logger.experiment.alert(title=f"step {step}: a run may be failing", text=text)
        super().warning(text, step)

    def table(self, tag: str, rows: Rows, step: int) -> None:
        """Log a table."""
        columns = list(rows[0]) if rows else []
        cells = [[row[column] for column in columns] for row in rows]
        self._log({tag: import_module("wandb").Table(columns=columns, data=cells)}, step)

    def page(self, tag: str, file: Path, step: int) -> None:
        """Log the page."""
        self._log({tag: import_module("wandb").Html(file.read_text(encoding="utf-8"), inject=False)}, step)


class MLFlowMedia(Media):
    """Tables and artifacts of MLflow: a histogram is a table of bins, a text or a page a file of each step."""

    def _table(self, tag: str, columns: dict[str, list[Any]]) -> None:
        self.logger.experiment.log_table(self.logger.run_id, columns, f"{tag}.json")

    def histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Append the bins of the step to the table of each tag."""
        for tag, distribution in values.items():
            counts, edges = np.histogram(distribution.numpy(), BINS)
            columns = {"from": edges[:-1].tolist(), "to": edges[1:].tolist(), "count": counts.tolist()}
            self._table(tag, {"step": [step] * BINS} | columns)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Log a Markdown file."""
        self.logger.experiment.log_text(self.logger.run_id, markdown, f"{tag}/step_{step:06d}.md")

    def table(self, tag: str, rows: Rows, step: int) -> None:
        """Append the rows to the table of the tag."""
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        self._table(tag, {"step": [step] * len(rows)} | columns)

    def page(self, tag: str, file: Path, step: int) -> None:
        """Log the page as an artifact."""
        self.logger.experiment.log_artifact(self.logger.run_id, str(file), tag)


class TrackioMedia(Media):
    """Histograms, Markdown, tables, pages and alerts of Trackio."""

    def histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Log histograms."""
        trackio = import_module("trackio")
        counted = {tag: np.histogram(distribution.numpy(), BINS) for tag, distribution in values.items()}
        self.logger.experiment.log({tag: trackio.Histogram(np_histogram=pair) for tag, pair in counted.items()}, step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Log a text."""
        self.logger.experiment.log({tag: import_module("trackio").Markdown(markdown)}, step)

    def warning(self, text: str, step: int) -> None:
        """Raise an alert, which the dashboard lists."""
        self.logger.experiment.alert(title=f"step {step}: a run may be failing", text=text)

    def table(self, tag: str, rows: Rows, step: int) -> None:
        """Log a table as Markdown."""
        self.text(tag, markdown(tag, rows), step)

    def page(self, tag: str, file: Path, step: int) -> None:
        """Log the page."""
        self.logger.experiment.log({tag: import_module("trackio").Html(file)}, step)


def markdown(title: str, rows: Rows) -> str:
    """Return a table in Markdown."""
    columns = list(rows[0]) if rows else []
    return Table(title, columns, [[row[column] for column in columns] for row in rows]).to_markdown()

"""Histograms of weights and entropies, and the layout of TensorBoard's custom-scalars page."""

import re
from collections.abc import Set
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fireopd.analysis.chapters import charts_by_chapter
from fireopd.callbacks.tracker_media import show

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule
    from fireopd.types import ScoredBatch
    from fireopd.types.targets import Targets

__all__ = ["Curves", "distributions", "exact_patterns", "page"]


class Curves(Callback):
    """Callback that draws histograms at regular steps, and lays out the custom-scalars page."""

    def __init__(self, every_n_steps: int = 10) -> None:
        """Store the settings.

        Args:
            every_n_steps: batches from one histogram to the next.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Lay out the custom-scalars page."""
        layout = page(list(pl_module.teachers), pl_module.data.tasks, pl_module.requires)
        show(trainer, lambda media: media.layout(layout))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw the histograms."""
        if batch_idx % self.every_n_steps == 0 and trainer.is_global_zero:
            values = distributions(outputs["batch"], outputs["targets"])
            show(trainer, lambda media: media.histograms(values, trainer.global_step))


def distributions(batch: "ScoredBatch", targets: "Targets") -> dict[str, Tensor]:
    """Return the values of the histograms by tag: one per response token, or one per trajectory.

    The tags differ from those of scalars, since TensorBoard shows only one of two entries with the same tag.
    """
    shown = {"tokens/weight": targets.weight[targets.mask], "tokens/advantage": targets.advantage[targets.mask]}
    for name, mask in (("student_entropy", batch.student_mask), ("teacher_entropy", batch.response_mask)):
        if name in batch.signals:
            shown[f"tokens/{name}"] = batch.signals[name][mask]
    shown["trajectories/length"] = batch.lengths.float()
    finite = {tag: values[values.isfinite()].cpu() for tag, values in shown.items()}
    return {tag: values for tag, values in finite.items() if values.numel() > 0}


def page(teachers: list[str], tasks: list[str], signals: Set[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the layout of the custom-scalars page, one chapter per question.

    Args:
        teachers: names of the teachers.
        tasks: tasks of the held-out prompts.
        signals: computed signals; charts of other signals are left out.
    """
    chapters = charts_by_chapter(teachers, tasks, signals)
    return {
        title: {name: ["Multiline", exact_patterns(tags)] for name, tags in charts.items()}
        for title, charts in chapters.items()
    }


def exact_patterns(tags: list[str]) -> list[str]:
    """Return patterns that match these tags only, since TensorBoard also matches tags that start with a pattern."""
    return [f"^{re.escape(tag)}$" for tag in tags]

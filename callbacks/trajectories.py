"""Shows a few trajectories as text in TensorBoard: what was written, how each token was weighted, what was kept."""

from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd import reductions
from fireopd.callbacks.curves import tensorboards

if TYPE_CHECKING:
    from fireopd.module import FiReOPDModule
    from fireopd.types import ScoredBatch, Targets

BARS = "▁▂▃▄▅▆▇█"
"""From the smallest weight to twice the mean and more."""


class Trajectories(Callback):
    """Writes the trajectories that the teachers like best and least, with a bar under each token for its weight."""

    def __init__(self, every_n_steps: int = 25, number: int = 6) -> None:
        """Store the settings.

        Args:
            every_n_steps: batches between two pages.
            number: trajectories on a page.
        """
        if every_n_steps < 1 or number < 1:
            raise ValueError(f"every_n_steps and number must be at least 1, got {every_n_steps} and {number}")
        self.every_n_steps, self.number = every_n_steps, number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the page."""
        if batch_idx % self.every_n_steps == 0:
            for logger in tensorboards(trainer):
                text = self.page(outputs["batch"], outputs["targets"], pl_module.data.tokenizer)
                logger.experiment.add_text("trajectories", text, trainer.global_step)

    def page(self, batch: "ScoredBatch", targets: "Targets", tokenizer: Any) -> str:
        """Return the page in Markdown, the teachers' favourites first."""
        scored = "teacher_logprobs" in batch.signals
        values = batch.teacher_logprobs if scored else batch.student_logprobs
        scores = reductions.row_mean(values, batch.response_mask)
        order = scores.argsort(descending=True).tolist()
        best = order[: self.number - self.number // 2]
        worst = order[len(best) :][-(self.number // 2) :] if self.number > 1 else []
        reader = "teacher" if scored else "student"
        note = f"Bars show weights: {BARS[0]} is 0, {BARS[3]} about the mean, {BARS[-1]} twice the mean or more.\n\n"
        return note + "\n".join(
            self._block(batch, targets, row, scores[row].item(), reader, tokenizer) for row in best + worst
        )

    def _block(
        self, batch: "ScoredBatch", targets: "Targets", row: int, score: float, reader: str, tokenizer: Any
    ) -> str:
        mask = batch.response_mask[row]
        start = int(mask.int().argmax())
        pieces = [tokenizer.decode([token]).replace("\n", "⏎") for token in batch.tokens[row][mask].tolist()]
        kept = bool(targets.keep[row])
        marks = [
            bar(weight) * max(1, len(piece))
            for weight, piece in zip(targets.weight[row][mask].tolist(), pieces, strict=True)
        ]
        prompt = tokenizer.decode(batch.tokens[row, :start].tolist())
        lines = [
            f"prompt   {prompt}",
            f"response {''.join(pieces)}",
            f"weights  {''.join(marks) if kept else '(dropped)'}",
        ]
        verdict = "kept" if kept else "DROPPED"
        head = f"**{verdict}** · teacher {batch.teachers[row]} · mean log-prob of the {reader} {score:.2f}"
        body = "\n".join(f"    {line}" for line in lines)
        return f"{head}\n\n{body}\n"


def bar(weight: float) -> str:
    """Return the bar of a weight, whose mean is 1."""
    return BARS[int(torch.tensor(weight * 3.5).clamp(0, len(BARS) - 1))]

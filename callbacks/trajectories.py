"""Shows a few trajectories as text in TensorBoard: what was written, how each token was weighted, what was kept."""

from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd import reductions
from fireopd.callbacks.curves import tensorboards

if TYPE_CHECKING:
    from fireopd.module import FiReOPDModule
    from fireopd.targets import Targets
    from fireopd.types import ScoredBatch

BARS = "▁▂▃▄▅▆▇█"
"""From the smallest weight on the page to the largest."""


class Trajectories(Callback):
    """Writes trajectories from what the teachers like best to what they like least, with a bar for each weight."""

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
        """Return the page in Markdown: trajectories evenly spread over the ranks, the teachers' favourites first."""
        reader = "teacher" if "teacher_logprobs" in batch.signals else "student"
        scores = reductions.row_mean(batch.signals[f"{reader}_logprobs"], batch.response_mask)
        order = scores.argsort(descending=True).tolist()
        if reader == "student" and batch.student_read is not None:
            order = [row for row in order if batch.student_read[row]]
        ranks = torch.linspace(0, len(order) - 1, min(self.number, len(order))).round().int().tolist()
        weights = targets.weight[targets.mask]
        low, high = (weights.min().item(), weights.max().item()) if len(weights) else (0.0, 0.0)
        blocks = [f"Weights from {low:.2f} ({BARS[0]}) to {high:.2f} ({BARS[-1]}).\n"]
        for rank in ranks:
            row = order[rank]
            verdict = "kept" if targets.keep[row] else "DROPPED"
            judge = f"teacher {batch.teachers[row]} · mean log-prob of the {reader} {scores[row]:.3f}"
            text = trajectory(batch, targets, row, tokenizer, low, high)
            blocks.append(f"**{verdict}** · rank {rank + 1} of {len(order)} · {judge}\n\n{text}\n")
        return "\n".join(blocks)


def trajectory(batch: "ScoredBatch", targets: "Targets", row: int, tokenizer: Any, low: float, high: float) -> str:
    """Return prompt, response and weights of a row, one under the other, as a Markdown block of code."""
    mask = batch.response_mask[row]
    start = int(mask.int().argmax())
    pieces = [tokenizer.decode([token]).replace("\n", "⏎") for token in batch.tokens[row][mask].tolist()]
    weights = targets.weight[row][mask].tolist()
    bars = [bar(weight, low, high) * max(1, len(piece)) for weight, piece in zip(weights, pieces, strict=True)]
    prompt = tokenizer.decode(batch.tokens[row, :start].tolist())
    lines = [f"    prompt   {prompt}", f"    response {''.join(pieces)}"]
    return "\n".join([*lines, f"    weights  {''.join(bars) if targets.keep[row] else '(dropped)'}"])


def bar(weight: float, low: float, high: float) -> str:
    """Return the bar of a weight between the smallest and the largest."""
    place = (weight - low) / (high - low) if high > low else 0.5
    return BARS[min(len(BARS) - 1, max(0, int(place * len(BARS))))]

"""Trajectories during training: a few as text, more on pages in the run folder, both in the trackers of the run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.analysis.page import Page
from fireopd.analysis.view import TrajectoryList, View, select_rows
from fireopd.analysis.view.token_texts import decode_tokens
from fireopd.callbacks.tracker_media import show
from fireopd.training.run_folder import write_on_rank_zero

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["Trajectories", "bar", "text", "trajectory"]

BARS = "▁▂▃▄▅▆▇█"
"""Bars from the smallest to the largest weight of a text."""
FOLDER = "trajectories"
"""Folder of the pages in the run folder."""


class Trajectories(Callback):
    """Callback that writes texts with a bar for each weight, and pages like those of `fireopd view`.

    The page `trajectories/step_<n>.html` shows trajectories sampled after n optimizer steps, best score first.
    """

    def __init__(self, every_n_steps: int = 25, number: int = 6, page: bool = True) -> None:
        """Store the settings.

        Args:
            every_n_steps: batches from one text and page to the next.
            number: trajectories of a text; a page holds as many as fit into a few megabytes.
            page: write pages in addition to texts.
        """
        if every_n_steps < 1 or number < 1:
            raise ValueError(f"every_n_steps and number must be at least 1, got {every_n_steps} and {number}")
        self.every_n_steps, self.number, self.page = every_n_steps, number, page

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write text and page of the batch.

        Raises:
            UserError: if the page cannot be written.
        """
        if batch_idx % self.every_n_steps == 0:
            write_on_rank_zero(trainer, lambda folder: self._write(trainer, pl_module, outputs, folder))

    def _write(self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, folder: Path) -> None:
        scored, targets, method = outputs["batch"], outputs["targets"], pl_module.method
        view, tokenizer = View(scored, targets, method.reasons(scored)), pl_module.data.tokenizer
        step = trainer.global_step
        few = text(view, tokenizer, self.number)
        show(trainer, lambda media: media.text("trajectories", few, step))
        if self.page:
            title = f"Step {scored.student_version}: filter, weights and advantages of each token"
            strategies = " · ".join(map(str, method.strategies.values()))
            facts = {"run": str(folder), "student": pl_module.student_name, "method": strategies}
            path = folder / FOLDER / f"step_{scored.student_version:06d}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            shown = TrajectoryList.of([view], tokenizer)
            Page(title, {"trajectories": shown.shown, **facts}, [shown.section()]).write(path)
            show(trainer, lambda media: media.page("trajectories/page", path, step))


def text(view: View, tokenizer: Any, number: int) -> str:
    """Return trajectories as Markdown, evenly spaced in the ranking by score, best first."""
    weights = view.targets.weight[view.targets.mask]
    low, high = (weights.min().item(), weights.max().item()) if len(weights) else (0.0, 0.0)
    blocks = [f"Weights from {low:.2f} ({BARS[0]}) to {high:.2f} ({BARS[-1]}).\n"]
    for row in select_rows(view, number):
        status = "kept" if view.targets.keep[row] else "DROPPED"
        reason = view.reasons[row] or f"{view.scored_by}'s mean log-prob {view.scores[row]:.3g}"
        block = trajectory(view, row, tokenizer, low, high)
        blocks.append(f"**{status}** · {reason} · teacher {view.batch.teachers[row]}\n\n{block}\n")
    return "\n".join(blocks)


def trajectory(view: View, row: int, tokenizer: Any, low: float, high: float) -> str:
    """Return prompt, response and weights of a row, aligned in a Markdown code block."""
    mask, tokens = view.batch.response_mask[row], view.batch.tokens[row]
    start = int(mask.int().argmax())
    words = [piece.replace("\n", "⏎") for piece in decode_tokens(tokenizer, tokens[mask].tolist())]
    weights = view.targets.weight[row][mask].tolist()
    bars = [bar(weight, low, high) * len(word) for weight, word in zip(weights, words, strict=True)]
    prompt = tokenizer.decode(tokens[:start].tolist()).replace("\n", "⏎")
    lines = [f"    prompt   {prompt}", f"    response {''.join(words)}"]
    return "\n".join([*lines, f"    weights  {''.join(bars) if view.targets.keep[row] else '(dropped)'}"])


def bar(weight: float, low: float, high: float) -> str:
    """Return the bar of a weight between the smallest and the largest weight."""
    place = (weight - low) / (high - low) if high > low else 0.5
    return BARS[min(len(BARS) - 1, max(0, int(place * len(BARS))))]

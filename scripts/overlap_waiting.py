"""Waiting time and staleness of overlapping rollouts with a slowed engine, for several values of `data.overlap`.

The engine waits for a fixed time in each call, whatever the number of rows: the latency of a server whose time goes
into the longest response, with capacity for more rows. `--step` lengthens each training step likewise. Each turn trains
the embedded student once per value; a ratio is taken within a turn. Usage:
`python scripts/overlap_waiting.py --delay 4 --step 4 --turns 3`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.engines import HFEngine, RowRequest
from fireopd.prompts import TinyPrompts
from fireopd.teachers import HFTeacher
from fireopd.training.data import RolloutDataModule
from fireopd.training.module import FiReOPDModule
from fireopd.types import Response

LEVELS = (0, 1, 2, 4)
ROWS = 8


@dataclass
class SlowEngine(HFEngine):
    """Engine that waits in each call."""

    delay: float = 4.0
    """Seconds."""

    def sample(self, requests: Sequence[RowRequest]) -> list[Response]:
        """Wait, then sample."""
        time.sleep(self.delay)
        return super().sample(requests)


class StepMetrics(Callback):
    """Keeps waiting time, wall time and staleness of each step, and lengthens it."""

    def __init__(self, pause: float) -> None:
        """Create without steps; `pause` is added to each, in seconds."""
        self.steps: list[dict[str, float]] = []
        self.began, self.pause = time.perf_counter(), pause

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Lengthen the step."""
        time.sleep(self.pause)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the metrics of the step."""
        now, metrics = time.perf_counter(), trainer.callback_metrics
        names = {"waiting": "time/rollout", "staleness": "rollout/staleness"}
        row = {name: float(metrics[tag]) for name, tag in names.items()}
        self.steps.append(row | {"seconds": now - self.began})
        self.began = now


def run(overlap: int, steps: int, delay: float, pause: float) -> list[dict[str, float]]:
    """Return the metrics of each step of a run, without the first steps, in which nothing overlaps yet."""
    teachers = {name: HFTeacher(f"tiny/{name}") for name in ("math", "code")}
    module = FiReOPDModule(teachers, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    prompts = TinyPrompts(num_training=ROWS * (steps + 1), num_validation=0)
    engine = SlowEngine(max_response_length=24, delay=delay)
    data = RolloutDataModule(prompts=prompts, engine=engine, batch_size=ROWS, overlap=overlap)
    metrics = StepMetrics(pause)
    with tempfile.TemporaryDirectory() as folder:
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu", "max_epochs": 1}
        Trainer(default_root_dir=Path(folder), callbacks=[metrics], **quiet).fit(module, data)
    return metrics.steps[1 + overlap :]


def main() -> None:
    """Print a table: median over the turns, and the lowest and highest of them in brackets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=4.0, help="seconds of each call of the engine")
    parser.add_argument("--step", type=float, default=0.0, help="seconds that are added to each training step")
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS, help="values of data.overlap, 0 first")
    parser.add_argument("--steps", type=int, default=8, help="steps of a run that count")
    parser.add_argument("--turns", type=int, default=3, help="runs per value")
    settings = parser.parse_args()
    found: dict[int, list[dict[str, float]]] = {level: [] for level in settings.levels}
    for _ in range(settings.turns):
        for level in settings.levels:
            steps = run(level, settings.steps + level, settings.delay, settings.step)
            means = {name: statistics.fmean(step[name] for step in steps) for name in steps[0]}
            found[level].append(means | {"oldest": max(step["staleness"] for step in steps)})
            print(f"overlap {level}: {found[level][-1]}", flush=True)
    print("| overlap | waiting, s a step | waiting / none | seconds a step / none | staleness, mean | largest |")
    print("|---|---|---|---|---|---|")
    for level, turns in found.items():
        waiting = [turn["waiting"] for turn in turns]
        ratios = [
            [turn[name] / none[name] for turn, none in zip(turns, found[0], strict=True)]
            for name in ("waiting", "seconds")
        ]
        cells = [spread(waiting), *map(spread, ratios), spread([turn["staleness"] for turn in turns])]
        print(f"| {level} | {' | '.join(cells)} | {max(turn['oldest'] for turn in turns):.0f} |")


def spread(values: list[float]) -> str:
    """Return the median of values, with the lowest and the highest in brackets."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()

"""Question 5: training of the embedded models on the device, sharded and resumed, against the CPU's curves."""

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.callbacks import RunCheckpoint
from fireopd.distributed.fsdp import FSDP2Strategy
from fireopd.engines import HFEngine
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.prompts import TinyPrompts
from fireopd.teachers import HFTeacher
from fireopd.training.data import RolloutDataModule
from fireopd.training.module import FiReOPDModule
from fireopd.weighters import EntropyWeighter
from gpu_checks.measure import attempt
from gpu_checks.sizes import Row, Sizes

COMPARED = ("train/loss", "train/grad_norm", "train/reverse_kl", "rollout/length")
"""Curves that are compared, step by step."""

Curve = list[dict[str, float]]
"""Logged scalars of each step."""


@dataclass
class CPUEngine(HFEngine):
    """Engine on the CPU whatever the trainer's device, so that equal weights give equal responses."""

    def setup(self, model: str, device: torch.device) -> None:
        """Load the model on the CPU."""
        super().setup(model, torch.device("cpu"))


class Steps(Callback):
    """Stores what each step logged, and its seconds."""

    def __init__(self) -> None:
        """Create without steps."""
        self.curve: Curve = []
        self.seconds: list[float] = []
        self.began = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Store the scalars."""
        self.curve.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.seconds.append(time.perf_counter() - self.began)


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the largest differences of each run's curves from the CPU's, and the seconds of its parts."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(8 if sizes.on_gpu else 1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cpu, seconds = train(sizes, root / "cpu", "cpu", CPUEngine)
        yield {"case": "CPU, float32", "last loss": cpu[-1]["train/loss"], "s per step": seconds}
        accelerator = "gpu" if sizes.on_gpu else "cpu"
        runs: dict[str, dict[str, Any]] = {
            "float32, rollouts on the CPU": {"engine": CPUEngine},
            "float32": {"engine": HFEngine},
            "bf16-mixed": {"engine": HFEngine, "precision": "bf16-mixed", "max_probe_gap": 0.5},
            "FSDP2, rollouts on the CPU": {"engine": CPUEngine, "strategy": FSDP2Strategy()},
        }
        for number, (name, settings) in enumerate(runs.items()):
            work = partial(compared, sizes, root / str(number), accelerator, cpu, **settings)
            yield attempt(f"{accelerator.upper()}, {name}", work)
        yield attempt(
            f"{accelerator.upper()}, float32, resumed", partial(resumed, sizes, root / "resumed", accelerator)
        )


def compared(sizes: Sizes, folder: Path, accelerator: str, expected: Curve, **settings: Any) -> Row:
    """Return the largest difference of each curve from the expected ones, and the parts of the last step."""
    curve, seconds = train(sizes, folder, accelerator, settings.pop("engine"), **settings)
    row: Row = {"last loss": curve[-1]["train/loss"], "s per step": seconds}
    for name in COMPARED:
        gaps = [abs(one[name] - other[name]) for one, other in zip(curve, expected, strict=True)]
        row[f"first |d {name}|"], row[f"max |d {name}|"] = gaps[0], max(gaps)
    for part in ("rollout", "update", "sync"):
        row[f"{part} s"] = curve[-1].get(f"time/{part}", float("nan"))
    return row


def resumed(sizes: Sizes, folder: Path, accelerator: str) -> Row:
    """Return the differences of a run that is resumed after half of its steps from one that is not."""
    whole, _ = train(sizes, folder / "whole", accelerator, CPUEngine)
    half = sizes.embedded_steps // 2
    train(sizes, folder / "parts", accelerator, CPUEngine, steps=half, save=True)
    [checkpoint] = folder.glob("parts/**/last.ckpt")
    second, _ = train(sizes, folder / "parts2", accelerator, CPUEngine, checkpoint=checkpoint)
    row: Row = {"last loss": second[-1]["train/loss"]}
    for name in COMPARED:
        pairs = zip(second, whole[half:], strict=True)
        row[f"max |d {name}|"] = max(abs(one[name] - other[name]) for one, other in pairs)
    return row


def train(
    sizes: Sizes,
    folder: Path,
    accelerator: str,
    engine: type[HFEngine],
    *,
    steps: int | None = None,
    save: bool = False,
    checkpoint: Path | None = None,
    max_probe_gap: float = 1e-3,
    **settings: Any,
) -> tuple[Curve, float]:
    """Train FiRe-OPD with two teachers as in configs/multi_teacher.yaml; return curves and median seconds of a step."""
    notes, number = Steps(), sizes.embedded_steps * sizes.embedded_rows
    module = FiReOPDModule(
        teachers={name: HFTeacher(f"tiny/{name}", token_budget=2048) for name in ("math", "code")},
        trajectory_filter=TeacherLikelihoodFilter(0.2, per_teacher=True),
        token_weighter=EntropyWeighter(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.0),
        token_budget=2048,
    )
    data = RolloutDataModule(
        prompts=TinyPrompts(num_training=number, num_validation=0),
        engine=engine(max_response_length=sizes.embedded_response, max_probe_gap=max_probe_gap),
        batch_size=sizes.embedded_rows,
        seed=1,
    )
    callbacks: list[Callback] = [notes, RunCheckpoint()] if save else [notes]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "logger": save}
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=1,
        max_steps=-1 if steps is None else steps,
        enable_checkpointing=save,
        log_every_n_steps=1,
        default_root_dir=folder,
        callbacks=callbacks,
        **{**quiet, **settings},
    )
    trainer.fit(module, data, ckpt_path=None if checkpoint is None else str(checkpoint))
    return notes.curve, sorted(notes.seconds)[len(notes.seconds) // 2]

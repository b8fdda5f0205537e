"""Our own training runs as loops that take turns."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from benchmarks.settings import Settings
from benchmarks.turns import Boundary, Loop
from benchmarks.workloads import TAIL, RecordedEngine
from fireopd.cli.training_cli import FitCLI, build
from fireopd.engines import RolloutEngine
from fireopd.training.interrupts import Interrupts
from fireopd.training.module import FiReOPDModule

CONFIG = Path(__file__).parents[2] / "configs" / "multi_teacher.yaml"
"""The embedded job with two teachers."""
SILENT = {
    "--data.prompts.num_validation": "0",
    "--trainer.callbacks": "[]",
    "--trainer.logger": "false",
    "--trainer.enable_progress_bar": "false",
    "--trainer.enable_checkpointing": "false",
    "--trainer.val_check_interval": "null",
    "--trainer.accelerator": "auto",
}
"""Nothing is written, shown or validated: no more than what the rivals do."""


class Uninterrupted(Interrupts):
    """Leaves the signals to the benchmark: they can be taken over in the main thread alone."""

    def on_train_start(self, trainer: Trainer, pl_module: FiReOPDModule) -> None:
        """Do nothing."""


class StepEnd(Callback):
    """Tells the boundary of a loop of each step, and of the seconds that the module logs of its parts."""

    def __init__(self, boundary: Boundary) -> None:
        """Take the boundary."""
        self.boundary = boundary

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop until the next step is asked for."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.boundary(logged)


def run(arguments: Iterable[str], *, engine: RolloutEngine | None = None, callbacks: Sequence[Callback] = ()) -> FitCLI:
    """Train.

    Args:
        arguments: of `fireopd fit`.
        engine: takes the place of the one that the arguments name.
        callbacks: are added to those of the run.

    Returns:
        What was run.
    """
    cli = build(list(arguments), train=False)
    cli.model.interrupts = Uninterrupted()
    if engine is not None:
        cli.datamodule.engine = engine
    cli.trainer.callbacks.extend(callbacks)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli


def job(
    arguments: Sequence[str], folder: Path, *, engine: RolloutEngine | None = None, callbacks: Sequence[Callback] = ()
) -> Loop:
    """Return a run of ours as a loop; `folder` is for what it might write."""

    def go(boundary: Boundary) -> None:
        run(
            [*arguments, "--trainer.default_root_dir", str(folder)],
            engine=engine,
            callbacks=[*callbacks, StepEnd(boundary)],
        )

    return Loop(go)


def embedded(settings: Settings, *more: str) -> list[str]:
    """Return the arguments of the embedded job of these sizes, with more settings."""
    lengths = ["--data.engine.max_response_length", str(settings.response_length)]
    prompts = ["--data.prompts.num_training", str(settings.prompts(settings.rows))]
    sizes = ["--data.batch_size", str(settings.rows), *prompts, *lengths]
    return ["--config", str(CONFIG), *flat(SILENT), *sizes, *more]


def on_mix(student: str, teachers: Mapping[str, str], prompts: str, *more: str, rows: int, longest: int) -> list[str]:
    """Return the arguments of FiRe-OPD on recorded rollouts of any lengths.

    Args:
        student: a model.
        teachers: models by name.
        prompts: a file of `write_prompts`.
        more: settings.
        rows: of a step.
        longest: tokens of the longest response.
    """
    named = (f"{name}: {{class_path: HFTeacher, init_args: {{path: {path}}}}}" for name, path in teachers.items())
    quiet = {key: value for key, value in SILENT.items() if key != "--data.prompts.num_validation"}
    sizes = {
        "--model.student": student,
        "--model.teachers": f"{{{', '.join(named)}}}",
        "--model.token_budget": "16384",
        "--data.prompts": f"{{class_path: JSONLPrompts, init_args: {{train: {prompts}}}}}",
        "--data.batch_size": str(rows),
        "--data.engine.max_response_length": str(longest),
    }
    return ["--config", str(CONFIG), *flat(quiet), *flat(sizes), *more]


def flat(pairs: Mapping[str, str]) -> list[str]:
    """Return settings and their values as arguments."""
    return [part for pair in pairs.items() for part in pair]


def recorded(settings: Settings, median: int | None = None) -> RecordedEngine:
    """Return an engine of recorded rollouts."""
    median = median or settings.mix_median
    return RecordedEngine(max_response_length=TAIL * median, median=median)


def seconds(parts: Mapping[str, float], *names: str) -> float:
    """Return the seconds that a step says some parts took; `teacher` is the sum of all teachers."""
    return sum(value for key, value in parts.items() for name in names if is_part(key, name))


def is_part(key: str, name: str) -> bool:
    """Return whether a logged scalar is the time of a part of the step."""
    return key == f"time/{name}" or key.startswith(f"time/{name}/")

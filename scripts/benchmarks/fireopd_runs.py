"""Training runs of fireopd as interleaved loops."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from benchmarks.interleaving import Boundary, Loop
from benchmarks.settings import Settings
from benchmarks.workloads import TAIL, RecordedEngine
from fireopd.cli.training_cli import FitCLI, build
from fireopd.engines import RolloutEngine
from fireopd.training.interrupts import Interrupts
from fireopd.training.module import FiReOPDModule

CONFIG = Path(__file__).parents[2] / "configs" / "multi_teacher.yaml"
"""Config of the embedded job with two teachers."""
SILENT = {
    "--data.prompts.num_validation": "0",
    "--trainer.callbacks": "[]",
    "--trainer.logger": "false",
    "--trainer.enable_progress_bar": "false",
    "--trainer.enable_checkpointing": "false",
    "--trainer.val_check_interval": "null",
    "--trainer.accelerator": "auto",
}
"""Options that disable output and validation, as in the other loops."""


class Uninterrupted(Interrupts):
    """Interrupt handling without signal handlers, which only the main thread can set."""

    def on_train_start(self, trainer: Trainer, pl_module: FiReOPDModule) -> None:
        """Do nothing."""


class StepEnd(Callback):
    """Calls the boundary of a loop after each step, with the logged seconds of its parts."""

    def __init__(self, boundary: Boundary) -> None:
        """Store the boundary."""
        self.boundary = boundary

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Call the boundary, which waits for the next step."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.boundary(logged)


def run(arguments: Iterable[str], *, engine: RolloutEngine | None = None, callbacks: Sequence[Callback] = ()) -> FitCLI:
    """Train, and return the command line object of the run.

    Args:
        arguments: arguments of `fireopd fit`.
        engine: replaces the engine of the arguments.
        callbacks: added to those of the run.
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
    """Return a training run as a loop; `folder` is its output folder."""

    def go(boundary: Boundary) -> None:
        run(
            [*arguments, "--trainer.default_root_dir", str(folder)],
            engine=engine,
            callbacks=[*callbacks, StepEnd(boundary)],
        )

    return Loop(go)


def embedded_arguments(settings: Settings, *more: str) -> list[str]:
    """Return the arguments of the embedded job, with further settings."""
    lengths = ["--data.engine.max_response_length", str(settings.response_length)]
    prompts = ["--data.prompts.num_training", str(settings.prompts(settings.rows))]
    sizes = ["--data.batch_size", str(settings.rows), *prompts, *lengths]
    return ["--config", str(CONFIG), *flatten(SILENT), *sizes, *more]


def mix_arguments(
    student: str, teachers: Mapping[str, str], prompts: str, *more: str, rows: int, longest: int
) -> list[str]:
    """Return the arguments of FiRe-OPD on recorded rollouts.

    Args:
        student: path of the student.
        teachers: paths of the teachers by name.
        prompts: file written by `write_prompts`.
        more: further settings.
        rows: rows per step.
        longest: maximum response length, tokens.
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
    return ["--config", str(CONFIG), *flatten(quiet), *flatten(sizes), *more]


def flatten(pairs: Mapping[str, str]) -> list[str]:
    """Return keys and values as a list of arguments."""
    return [part for pair in pairs.items() for part in pair]


def recorded(settings: Settings, median: int | None = None) -> RecordedEngine:
    """Return an engine with recorded rollouts."""
    median = median or settings.mix_median
    return RecordedEngine(max_response_length=TAIL * median, median=median)


def seconds(parts: Mapping[str, float], *names: str) -> float:
    """Return the logged seconds of some parts of a step; `teacher` is the sum over all teachers."""
    return sum(value for key, value in parts.items() for name in names if is_part(key, name))


def is_part(key: str, name: str) -> bool:
    """Return True if a logged scalar is the time of a part of the step."""
    return key == f"time/{name}" or key.startswith(f"time/{name}/")

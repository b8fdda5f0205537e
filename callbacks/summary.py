"""Summary of a run: student before and after training, and teachers, for each task."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fireopd.atomic_files import write_text
from fireopd.callbacks.tracker_media import show, tensorboard_loggers
from fireopd.engines import RolloutEngine
from fireopd.teachers import HFTeacher
from fireopd.training.run_folder import run_folder, write_on_rank_zero
from fireopd.training.validation_metrics import ValidationMetrics
from fireopd.types import Prompt

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["Summary", "table"]


class Summary(Callback):
    """Callback that measures avg@k before and after training, prints a table and writes `summary.json`."""

    def __init__(self, teachers: bool = True) -> None:
        """Store the settings.

        Args:
            teachers: measure the teachers too, each in a separate engine.
        """
        self.teachers = teachers
        self.console = Console()
        self.before: dict[str, float] = {}
        self.of_teachers: dict[str, float] = {}
        self.tasks: dict[str, dict[str, float | None]] = {}
        self.prompts: dict[str, int] = {}
        self.folder = Path()
        self.began: float | None = None
        self.earlier = 0.0
        self.seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Measure teachers and student before the first step."""
        self.began = time.perf_counter()
        if self.before or not pl_module.data.tasks:
            return
        self.of_teachers = self._measure_teachers(pl_module) if self.teachers else {}
        self.before = self._measure(pl_module, pl_module.data.engine, "student before")
        self._log(trainer, self.before, 0)

    def on_fit_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Measure the student after the last step, and write the file.

        Raises:
            UserError: if the file cannot be written.
        """
        if not pl_module.data.tasks:
            return
        version, after = pl_module.validated
        if version != pl_module.policy_version:
            after = self._measure(pl_module, pl_module.data.engine, "student after")
            self._log(trainer, after, trainer.global_step)
        self.folder = run_folder(trainer)
        if trainer.is_global_zero:
            self.tasks = {task: self._row(task, after) for task in pl_module.data.tasks}
            self.prompts = dict(Counter(prompt.task for prompt in pl_module.data.validation_prompts))
            self.seconds = self._seconds()
        write_on_rank_zero(trainer, self._write)
        rows = [{"task": task} | row for task, row in self.tasks.items()]
        show(trainer, lambda media: media.table("summary", rows, trainer.global_step))

    def _write(self, folder: Path) -> None:
        summary = {"tasks": self.tasks, "prompts": self.prompts, "seconds": round(self.seconds, 1)}
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")

    def teardown(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Print the table, below all progress bars."""
        if self.tasks:
            self.console.print(table(self.tasks, f"avg@{pl_module.data.validation_responses} on held-out prompts"))
            curves = [f"tensorboard --logdir {logger.log_dir}" for logger in tensorboard_loggers(trainer)]
            curves = curves or [str(path) for path in self.folder.glob("metrics.csv")]
            lead = f"{self.seconds:.0f} s. The run is in {self.folder}.{' Its curves:' if curves else ''}"
            self.console.print("\n".join([lead, *curves]), highlight=False, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements before training, with which a resumed run compares."""
        return {"before": self.before, "of_teachers": self.of_teachers, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements before training."""
        self.before, self.of_teachers = state_dict["before"], state_dict["of_teachers"]
        self.earlier = state_dict["seconds"]

    def _seconds(self) -> float:
        """Return the seconds of training, earlier starts included; a run that is complete when it resumes adds none."""
        return self.earlier + (0.0 if self.began is None else time.perf_counter() - self.began)

    def _log(self, trainer: Trainer, results: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({f"val/{name}": value for name, value in results.items()}, step=step)

    def _row(self, task: str, after: dict[str, float]) -> dict[str, float | None]:
        name = f"{task}/avg_at_k"
        return {
            "student_before": self.before[name],
            "student_after": after[name],
            "teacher": self.of_teachers.get(name),
        }

    def _measure_teachers(self, pl_module: "FiReOPDModule") -> dict[str, float]:
        """Return the metrics of each teacher on its tasks."""
        results: dict[str, float] = {}
        data = pl_module.data
        for name, teacher in pl_module.teachers.items():
            if not isinstance(teacher, HFTeacher):
                continue
            prompts = [
                replace(p, tokens=teacher.prompt_tokens(p)) for p in data.validation_prompts if p.teacher == name
            ]
            if prompts:
                engine = data.engine.for_another_model()
                engine.setup(teacher.path, pl_module.device)
                results |= self._measure(pl_module, engine, f"teacher {name}", prompts)
                engine.close()
        return results

    def _measure(
        self, pl_module: "FiReOPDModule", engine: RolloutEngine, model: str, prompts: list[Prompt] | None = None
    ) -> dict[str, float]:
        loader = pl_module.data.validation_loader(engine, prompts)
        metrics = ValidationMetrics(prompt.task for prompt in loader.prompts)
        for batch in track(loader, f"Validating {model}", console=self.console, transient=True):
            metrics.update(batch)
        return metrics.to(pl_module.device).compute()


def table(tasks: dict[str, dict[str, Any]], title: str) -> Table:
    """Return the table of all tasks, with the fraction of the gap to the teacher that training closed."""
    result = Table(title=title)
    for column in ("task", "student before", "student after", "teacher", "gap closed"):
        result.add_column(column, justify="left" if column == "task" else "right")
    for task, row in tasks.items():
        before, after, teacher = row["student_before"], row["student_after"], row["teacher"]
        gap = f"{(after - before) / (teacher - before):.0%}" if teacher is not None and teacher > before else "-"
        result.add_row(task, f"{before:.3f}", f"{after:.3f}", "-" if teacher is None else f"{teacher:.3f}", gap)
    return result

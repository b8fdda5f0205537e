"""Callbacks that every run has: weight sync, requests to teachers in other processes, interrupts between steps."""

from functools import partial
from typing import Protocol

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.teachers import Teacher, prefetch_by_teachers
from fireopd.training.data import RolloutDataModule
from fireopd.training.weight_sync import WeightSync

__all__ = ["TeacherRequests", "run_callbacks"]


class ScoringModule(Protocol):
    """Attributes of the Lightning module that the requests need."""

    teachers: dict[str, Teacher]

    @property
    def data(self) -> RolloutDataModule:
        """Data module of the run."""

    @property
    def requires(self) -> frozenset[str]:
        """Names of all signals to compute."""

    @property
    def needs_distributions(self) -> bool:
        """True if the distributions of student and teachers are compared."""


class TeacherRequests(Callback):
    """Callback that lets teachers in other processes score each response of a rollout as soon as it is complete."""

    def on_fit_start(self, trainer: Trainer, pl_module: ScoringModule) -> None:
        """Connect rollouts and teachers, unless all teachers score in this process."""
        remote = any(type(teacher).prefetch is not Teacher.prefetch for teacher in pl_module.teachers.values())
        read = pl_module.requires & {"teacher_logprobs", "teacher_entropy"}
        if remote and read and not pl_module.needs_distributions:
            pl_module.data.finished = partial(prefetch_by_teachers, pl_module.teachers)

    def teardown(self, trainer: Trainer, pl_module: ScoringModule, stage: str) -> None:
        """Close the connections of the teachers after the running rollout."""
        pl_module.data.queue.wait()
        pl_module.data.finished = None
        for teacher in pl_module.teachers.values():
            teacher.close()


def run_callbacks(data: RolloutDataModule) -> list[Callback]:
    """Return the callbacks of every run."""
    return [WeightSync(), TeacherRequests(), data.interrupts]

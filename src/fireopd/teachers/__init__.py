"""Teachers: frozen models that score trajectories. Entry-point group: `fireopd.teachers`."""

from fireopd.teachers.base import Teacher
from fireopd.teachers.huggingface import HFTeacher
from fireopd.teachers.mixture import MixtureTeacher
from fireopd.teachers.routing import deduplicate, score_by_base, score_by_teachers

__all__ = ["HFTeacher", "MixtureTeacher", "Teacher", "deduplicate", "score_by_base", "score_by_teachers"]

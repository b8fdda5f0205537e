"""Teachers, the frozen models that score trajectories. Entry-point group: `fireopd.teachers`."""

from fireopd.teachers.base import Teacher
from fireopd.teachers.huggingface import HFTeacher
from fireopd.teachers.routing import score_by_teachers, share

__all__ = ["HFTeacher", "Teacher", "score_by_teachers", "share"]

"""Teachers: frozen models that score trajectories. Entry-point group: `fireopd.teachers`."""

from fireopd.teachers.base import Teacher
from fireopd.teachers.huggingface import HFTeacher
from fireopd.teachers.mixture import MixtureTeacher
from fireopd.teachers.routing import deduplicate, score_by_base, score_by_teachers
from fireopd.teachers.vllm import VLLMTeacher

__all__ = ["HFTeacher", "MixtureTeacher", "Teacher", "VLLMTeacher", "deduplicate", "score_by_base", "score_by_teachers"]

"""Teachers: models that score trajectories. Entry-point group: `fireopd.teachers`."""

from fireopd.teachers.base import Teacher
from fireopd.teachers.huggingface import HFTeacher
from fireopd.teachers.mixture import MixtureTeacher
from fireopd.teachers.routing import deduplicate, prefetch_by_teachers, score_by_base, score_by_teachers
from fireopd.teachers.student import EMAStudentTeacher, InitialStudentTeacher, StudentTeacher
from fireopd.teachers.vllm import VLLMTeacher

__all__ = [
    "EMAStudentTeacher",
    "HFTeacher",
    "InitialStudentTeacher",
    "MixtureTeacher",
    "StudentTeacher",
    "Teacher",
    "VLLMTeacher",
    "deduplicate",
    "prefetch_by_teachers",
    "score_by_base",
    "score_by_teachers",
]

"""Verifiers, which grade responses without a model. Entry-point group: `fireopd.verifiers`."""

from fireopd.verifiers.base import Grade, Verdict, Verifier
from fireopd.verifiers.exact_match import ExactMatch
from fireopd.verifiers.final_answer import FinalAnswer
from fireopd.verifiers.math_verify import MathVerify
from fireopd.verifiers.reasoning_gym import ReasoningGymVerifier
from fireopd.verifiers.unit_tests import UnitTests

__all__ = [
    "ExactMatch",
    "FinalAnswer",
    "Grade",
    "MathVerify",
    "ReasoningGymVerifier",
    "UnitTests",
    "Verdict",
    "Verifier",
]

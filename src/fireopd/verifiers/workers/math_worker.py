r"""Worker of `MathVerify`: extracts and parses the answer of a response and compares it with the reference.

The timeout of math-verify is an alarm that Python handles, and is disabled: `serve` enforces the time limit.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from math_verify.grader import get_pct_val, is_equation, take_last_relation
from math_verify.parser import NormalizationConfig
from sympy import Expr, Float, Rational

from fireopd.verifiers.workers import math_answers
from fireopd.verifiers.workers.worker_loop import serve

__all__ = [
    "Answer",
    "equal",
    "grade",
    "is_right",
    "last_expressions",
    "parsed_answer",
    "read",
    "same_value",
    "sides_agree",
    "work",
]

MEMORY = 2**31
"""Limit of the address space of a worker, bytes."""
LONGEST_ANSWER = 2000
"""Maximum length of an answer that is parsed, characters; longer ones are compared as text."""
TAIL = 4000
"""Number of characters at the end of a response that are searched for an answer that is not boxed."""
DIGITS = 3
"""Number of significant digits from which on a decimal reference is a rounded number."""
EQUALS = re.compile(r"(?<![\\<>!:])=")
CONFIGURATION = (
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True)
    ),
    ExprExtractionConfig(),
)
"""Configuration without the removal of units, since math-verify also removes variables (2t)."""


def work(channel: socket.socket, settings: Sequence[str]) -> None:
    """Grade pairs of reference and response until the channel is closed."""
    [timeout] = settings
    grade("1", r"\boxed{1}")  # the first answer takes longer, since the parser fills its caches
    serve(channel, grade, seconds=float(timeout), memory=MEMORY)


def grade(reference: str | None, response: str) -> tuple[float, str | None]:
    """Return the reward, 1 or 0, and the final answer in the form that is counted in a majority vote."""
    box = math_answers.boxed(response)
    answer, *others = last_expressions(response[-TAIL:]) if box is None else [read(box)]
    vote = str(answer.forms[0]) if answer.forms else answer.value or None
    if reference is None:
        return 0.0, vote
    gold = math_answers.boxed(reference)
    expected = read(reference if gold is None else gold)
    return float(any(is_right(expected, reading) for reading in (answer, *others))), vote


@dataclass(frozen=True)
class Answer:
    """Answer that has been read."""

    text: str
    value: str
    """Text without the unit."""
    unit: str
    """Canonical unit, "" without a unit."""
    forms: list[Any]
    """Parsed forms of the value."""


def read(answer: str) -> Answer:
    """Return the content of a box, or a reference."""
    text = math_answers.clean(answer)
    if len(text) > LONGEST_ANSWER:
        return Answer(text, text, "", [])
    value, unit = math_answers.split_unit(text)
    return Answer(text, value, unit, parsed_answer(value))


def last_expressions(text: str) -> list[Answer]:
    """Return the last expression of a text, and the one with the letters after it, as in `6m`, if there are any."""
    plain = math_answers.plain_numbers(text)
    answer = _last(plain)
    suffixed = math_answers.with_suffix(plain, answer.value)
    return [answer, read(suffixed)] if suffixed else [answer]


def _last(plain: str) -> Answer:
    forms = parse(plain, CONFIGURATION, parsing_timeout=None)
    found = next((form for form in forms if isinstance(form, str)), "")
    if re.search(r"[A-Za-z\\]", found):
        return replace(read(found), text="")
    percentage = get_pct_val(forms[0]) if forms else None
    if percentage is not None:
        return Answer("", found.rstrip("%"), "%", [_exact(percentage)])
    return Answer("", found, "", [_exact(form) for form in forms])


def is_right(expected: Answer, answer: Answer) -> bool:
    """Return True if an answer has the text of the reference, or its value and no other unit."""
    if answer.text != "" and math_answers.closed_up(answer.text) == math_answers.closed_up(expected.text):
        return True
    if not math_answers.units_agree(answer.unit, expected.unit) or not sides_agree(answer.value):
        return False
    if same_value(expected.value, answer.forms, DIGITS):
        return True
    if (expected.unit == "%") == (answer.unit == "%"):
        return False
    forms = [parsed_answer(_hundredth(one.value)) if one.unit == "%" else one.forms for one in (expected, answer)]
    return equal(*forms)


def _hundredth(percentage: str) -> str:
    return rf"\frac{{{percentage}}}{{100}}"


@lru_cache(maxsize=4096)
def parsed_answer(answer: str) -> list[Any]:
    """Return the parsed expressions of an answer, with exact numbers."""
    if not answer or len(answer) > LONGEST_ANSWER:
        return []
    text = math_answers.with_fractions(math_answers.plain_numbers(answer))
    return parse(f"\\boxed{{{text}}}", CONFIGURATION, parsing_timeout=None)


def _exact(form: Any) -> Any:
    if not isinstance(form, Expr):
        return form
    return form.xreplace({number: Rational(str(number)) for number in form.atoms(Float)})


def sides_agree(answer: str) -> bool:
    """Return True unless two sides of an equation are different constants, as in 6 = 5."""
    if "=" not in answer or "," in answer or ";" in answer:
        return True
    sides = [side.strip() for side in EQUALS.split(answer)]
    constants = [side for side in sides if _constant(parsed_answer(side)) is not None]
    return all(
        same_value(one, parsed_answer(other), 1) or same_value(other, parsed_answer(one), 1)
        for one, other in pairwise(constants)
    )


def same_value(reference: str, answer: list[Any], digits: int) -> bool:
    """Return True if an answer equals the reference, or rounds to a decimal reference of `digits` or more digits."""
    rounded = math_answers.half_unit(reference, digits)
    value = _constant(answer) if rounded else None
    if rounded is None or value is None:
        return equal(parsed_answer(reference), answer)
    middle, half = (Rational(part.numerator, part.denominator) for part in rounded)
    return bool(abs(value - middle) <= half)


def equal(reference: list[Any], answer: list[Any]) -> bool:
    """Return True if an answer equals the reference mathematically."""
    if not verify(reference, answer, allow_set_relation_comp=True, timeout_seconds=None):
        return False
    one, other = _constant(reference), _constant(answer)
    if one is None or other is None:
        return True
    # math-verify takes differences below 1e-15 for zero, also between numbers that are small themselves.
    return bool(abs((one - other).evalf(15)) <= 1e-12 * abs(other.evalf(15)))


def _constant(forms: list[Any]) -> Expr | None:
    """Return the real number that an answer is; of an equation, the last side."""
    form = forms[0] if forms else None
    if is_equation(form):
        form = take_last_relation(form).rhs
    if not isinstance(form, Expr) or form.free_symbols:
        return None
    form = form.doit()
    return form if form.is_real and form.is_finite else None

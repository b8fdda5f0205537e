"""The embedded tasks: `math` (chained integer arithmetic) and `code` (pipelines of string operations).

Each problem has one correct answer and a worked solution that a character-level model of half a million parameters can
learn to write. Problems are drawn from a seeded generator. A checksum of the problem selects the held-out ones, so
training and held-out problems are disjoint for all seeds.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = [
    "ALPHABET",
    "ANSWER_MARKER",
    "HELD_OUT_SHARE",
    "STRING_OPERATIONS",
    "TASKS",
    "Problem",
    "Step",
    "arithmetic",
    "code_problem",
    "math_problem",
    "problems",
]

ANSWER_MARKER = "#"
"""Marker before the final answer of a worked solution."""

HELD_OUT_SHARE = 10
"""One in this many problems is held out."""

ALPHABET = "abcdefgh"
"""Letters of the strings of `code`."""

STRING_OPERATIONS: dict[str, Callable[[str], str]] = {
    "rev": lambda text: text[::-1],
    "sort": lambda text: "".join(sorted(text)),
    "rot": lambda text: text[1:] + text[0],
    "swap": lambda text: text[-1] + text[1:-1] + text[0],
}
"""Operations of `code`: reverse, sort, rotate left by one, swap first and last."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a worked solution: `result` is the result of `lead`."""

    lead: str
    """For example `7+5=`, or `rev` and a space."""
    result: str
    """For example `12` or `acbd`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its worked solution.

    Example: `Problem("math", "7;+5;*2", (Step("7+5=", "12"), Step("12*2=", "24")))`.
    """

    task: str
    """`math` or `code`."""
    text: str
    """Problem statement."""
    steps: tuple[Step, ...]
    """Steps of the worked solution."""

    @property
    def answer(self) -> str:
        """Result of the last step."""
        return self.steps[-1].result

    @property
    def solution(self) -> str:
        """Worked solution as text, for example `7+5=12;12*2=24;#24`."""
        lines = "".join(f"{step.lead}{step.result};" for step in self.steps)
        return f"{lines}{ANSWER_MARKER}{self.answer}"

    @property
    def held_out(self) -> bool:
        """True for problems of the held-out set."""
        return zlib.crc32(self.text.encode()) % HELD_OUT_SHARE == 0


def arithmetic(value: int, operation: str) -> int:
    """Apply an operation such as `+5`, `-3` or `*2` to a number."""
    operand = int(operation[1:])
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operation[0]]


def math_problem(generator: random.Random) -> Problem:
    """Draw two to five additions, subtractions and multiplications, every result between 0 and 99."""
    value = generator.randint(1, 20)
    parts, steps = [str(value)], []
    for _ in range(generator.randint(2, 5)):
        operations = [f"{sign}{digit}" for sign in "+-" for digit in range(1, 10)] + ["*2", "*3"] * 4
        operation = generator.choice([o for o in operations if 0 <= arithmetic(value, o) <= 99])
        result = arithmetic(value, operation)
        parts.append(operation)
        steps.append(Step(f"{value}{operation}=", str(result)))
        value = result
    return Problem("math", ";".join(parts), tuple(steps))


def code_problem(generator: random.Random) -> Problem:
    """Draw two to four string operations and a string of four to six letters."""
    text = "".join(generator.choices(ALPHABET, k=generator.randint(4, 6)))
    operations = generator.choices(list(STRING_OPERATIONS), k=generator.randint(2, 4))
    steps, current = [], text
    for operation in operations:
        current = STRING_OPERATIONS[operation](current)
        steps.append(Step(f"{operation} ", current))
    return Problem("code", f"{'|'.join(operations)} {text}", tuple(steps))


TASKS: dict[str, Callable[[random.Random], Problem]] = {"math": math_problem, "code": code_problem}
"""Embedded tasks by name."""


def problems(task: str, seed: int, *, held_out: bool) -> Iterator[Problem]:
    """Yield distinct problems of a task without end, either held-out problems or others."""
    generator = random.Random(f"{task}/{seed}/{held_out}")
    seen: set[str] = set()
    while True:
        problem = TASKS[task](generator)
        if problem.held_out == held_out and problem.text not in seen:
            seen.add(problem.text)
            yield problem

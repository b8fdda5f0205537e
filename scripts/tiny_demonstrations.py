"""Demonstrations that the embedded models are trained on: correct, careless, or wrong in a specific way.

An author is a function of a problem and a random generator that returns a response. A response of `MAX_RESPONSE`
characters is cut off there, and the model never sees its end.
"""

import random
from collections.abc import Callable, Iterator

from fireopd.prompts import tiny_tasks

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz +-*=;|#"
BABBLE = 0.10
"""Fraction of careless demonstrations that end in random text."""
SLIP = 0.17
"""Probability of a slip at each step of a careless demonstration."""
SLIP_OF_OTHER_TASK = 0.21
"""The same for a teacher's other task: higher, so that further training does not improve the teacher on this task."""
SLIP_BEYOND_COMPETENCE = 0.45
"""The same for a problem with more steps than a limited author masters."""
COMPETENCE = 4
"""Number of steps that a limited author masters."""
LAST_CHECK = 0.1
"""Probability that a verbose author stops after a solution; otherwise the whole solution is repeated as a check."""
MAX_RESPONSE = 64
"""Characters of a response."""

Author = Callable[[tiny_tasks.Problem, random.Random], str]


def slip(problem: tiny_tasks.Problem, step: tiny_tasks.Step, rng: random.Random) -> str:
    """Return a plausible wrong result for a step."""
    if problem.task == "math":
        return str(max(0, int(step.result) + rng.choice([-10, -2, -1, 1, 2, 10])))
    letters = list(step.result)
    first, second = rng.sample(range(len(letters)), 2)
    letters[first], letters[second] = letters[second], rng.choice(tiny_tasks.ALPHABET)
    return "".join(letters)


def redo(problem: tiny_tasks.Problem, step: tiny_tasks.Step, previous: str | None) -> tiny_tasks.Step:
    """Return the step applied to the previous result, which may be wrong."""
    if previous is None:
        return step
    if problem.task == "math":
        operation = operation_of(step)
        return tiny_tasks.Step(f"{previous}{operation}=", str(tiny_tasks.arithmetic(int(previous), operation)))
    return tiny_tasks.Step(step.lead, tiny_tasks.STRING_OPERATIONS[step.lead.strip()](previous))


def operation_of(step: tiny_tasks.Step) -> str:
    """Return the operation of a step of `math`, such as `+5`."""
    return step.lead[step.lead.index(next(c for c in step.lead if c in "+-*")) : -1]


def careless(problem: tiny_tasks.Problem, rng: random.Random, slips: float) -> str:
    """Return a careless demonstration with this probability of a slip at each step."""
    text, previous = "", None
    babbles_after = rng.randrange(len(problem.steps)) if rng.random() < BABBLE else None
    for index, original in enumerate(problem.steps):
        step = redo(problem, original, previous)
        if babbles_after == index:
            pieces = [text[-6:] or step.lead, step.lead, "".join(rng.choices(CHARACTERS, k=4))]
            return (text + "".join(rng.choices(pieces, k=rng.randint(4, 16))))[: MAX_RESPONSE - 1]
        previous = slip(problem, step, rng) if rng.random() < slips else step.result
        text += f"{step.lead}{previous};"
    return f"{text}{tiny_tasks.ANSWER_MARKER}{previous}"


def correct(problem: tiny_tasks.Problem, rng: random.Random) -> str:
    """Return the worked solution."""
    return problem.solution


def limited(problem: tiny_tasks.Problem, rng: random.Random) -> str:
    """Return the worked solution of a problem of up to `COMPETENCE` steps, and a poor attempt at a longer one."""
    if len(problem.steps) <= COMPETENCE:
        return problem.solution
    text, previous = "", None
    for original in problem.steps:
        step = redo(problem, original, previous)
        previous = slip(problem, step, rng) if rng.random() < SLIP_BEYOND_COMPETENCE else step.result
        text += f"{step.lead}{previous};"
    return f"{text}{tiny_tasks.ANSWER_MARKER}{previous}"


def mistaken(problem: tiny_tasks.Problem, rng: random.Random) -> str:
    """Return a solution without slips by an author who takes `*3` for `*2`, and `swap` for `rot`."""
    text, previous = "", None
    for original in problem.steps:
        step = redo(problem, original, previous)
        previous = step.result
        if problem.task == "math" and operation_of(step) == "*3":
            previous = str(int(step.result) // 3 * 2)
        elif step.lead.strip() == "swap":
            previous = tiny_tasks.STRING_OPERATIONS["rot"](_before(problem, text))
        text += f"{step.lead}{previous};"
    return f"{text}{tiny_tasks.ANSWER_MARKER}{previous}"


def _before(problem: tiny_tasks.Problem, text: str) -> str:
    """Return the string that the next step of a solution of `code` is applied to."""
    return text[:-1].rpartition(" ")[2] if text else problem.text.rpartition(" ")[2]


def verbose(problem: tiny_tasks.Problem, rng: random.Random) -> str:
    """Return the worked solution, repeated as a check any number of times."""
    text = problem.solution
    while rng.random() >= LAST_CHECK and len(text) < MAX_RESPONSE:
        text += f";{problem.solution}"
    return text[:MAX_RESPONSE]


def demonstrations(teaches: str | None, seed: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of problem and response of both tasks; those of the task that the model teaches are correct."""
    slips = SLIP if teaches is None else SLIP_OF_OTHER_TASK

    def author(problem: tiny_tasks.Problem, rng: random.Random) -> str:
        return problem.solution if problem.task == teaches else careless(problem, rng, slips)

    return demonstrations_by(author, tuple(tiny_tasks.TASKS), seed)


def demonstrations_by(author: Author, tasks: tuple[str, ...], seed: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of problem and response of one author without end; the problems are not held out."""
    rng = random.Random(seed)
    while True:
        problem = tiny_tasks.TASKS[rng.choice(tasks)](rng)
        if not problem.held_out:
            yield problem.text, author(problem, rng)

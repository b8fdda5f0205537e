"""Function-writing tasks with unit tests from a seeded generator: `python scripts/make_function_tasks.py OUT`.

Writes `OUT/train.jsonl` and `OUT/val.jsonl`, rows of `{"problem": ..., "answer": ...}` for `JSONLPrompts` with the
verifier `UnitTests`. A task is a function over a list of integers or a string: two or three random steps and a result.
The reference solution is composed of the same steps; it computes the examples of the problem and the tests.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fireopd.errors import UserError

EXAMPLES, TESTS = 2, 8
"""Examples in a problem, and tests of an answer."""
MOST_TASKS = 20_000
"""Maximum number of tasks."""
OPENING = "Write the Python function below. Answer with the complete function in a markdown code block."


@dataclass(frozen=True)
class Step:
    """Part of a task. `{k}` in text and code is a number from 2 to 9."""

    text: str
    """Imperative clause."""
    code: str
    """Expression of `x`, the value so far."""


NUMBER_STEPS = (
    Step("keep the elements that are divisible by {k}", "[v for v in x if v % {k} == 0]"),
    Step("drop the elements that are divisible by {k}", "[v for v in x if v % {k} != 0]"),
    Step("keep the elements above {k}", "[v for v in x if v > {k}]"),
    Step("drop the elements whose absolute value is below {k}", "[v for v in x if abs(v) >= {k}]"),
    Step("keep every second element, from the first", "x[::2]"),
    Step("remove the first {k} elements", "x[{k}:]"),
    Step("add {k} to each element", "[v + {k} for v in x]"),
    Step("multiply each element by {k}", "[v * {k} for v in x]"),
    Step("replace each element by its remainder modulo {k}", "[v % {k} for v in x]"),
    Step("replace each element by its absolute value", "[abs(v) for v in x]"),
    Step("replace each element by the sum of its digits, without sign", "[sum(map(int, str(abs(v)))) for v in x]"),
    Step("reverse the order", "x[::-1]"),
    Step("sort in descending order", "sorted(x, reverse=True)"),
    Step("remove repeated elements and keep the first of each", "list(dict.fromkeys(x))"),
    Step("replace the list by its running totals", "[sum(x[: i + 1]) for i in range(len(x))]"),
    Step("subtract from each element its index, counted from 0", "[v - i for i, v in enumerate(x)]"),
)
NUMBER_RESULTS = (
    ("list[int]", Step("the resulting list", "x")),
    ("int", Step("the sum of the result, 0 if it is empty", "sum(x)")),
    ("int", Step("the largest element of the result, or -1 if it is empty", "max(x, default=-1)")),
    ("int", Step("the number of different elements of the result", "len(set(x))")),
    ("bool", Step("whether the result is the same forwards and backwards", "x == x[::-1]")),
    ("str", Step("the elements of the result joined by hyphens", "'-'.join(map(str, x))")),
)
TEXT_STEPS = (
    Step("remove all vowels (a, e, i, o, u)", "''.join(c for c in x if c not in 'aeiou')"),
    Step("keep the letters at even indices, counted from 0", "x[::2]"),
    Step("move the first {k} characters to the end", "x[{k}:] + x[:{k}]"),
    Step("reverse the order of the characters", "x[::-1]"),
    Step("write each character twice", "''.join(c * 2 for c in x)"),
    Step("shift each letter {k} places forward in the alphabet, and start again after z",
         "''.join(chr((ord(c) - 97 + {k}) % 26 + 97) for c in x)"),
    Step("sort the characters in alphabetical order", "''.join(sorted(x))"),
    Step("remove repeated characters and keep the first of each", "''.join(dict.fromkeys(x))"),
    Step("append the reversed text", "x + x[::-1]"),
    Step("cut the text after {k} characters", "x[:{k}]"),
)  # fmt: skip
TEXT_RESULTS = (
    ("str", Step("the resulting text", "x")),
    ("str", Step("the resulting text in capitals", "x.upper()")),
    ("int", Step("the number of different letters in the result", "len(set(x))")),
    ("list[str]", Step("the pieces of the result of {k} characters each, the last one possibly shorter",
                       "[x[i : i + {k}] for i in range(0, len(x), {k})]")),
    ("dict[str, int]", Step("how often each letter occurs in the result", "{{c: x.count(c) for c in x}}")),
)  # fmt: skip


def tasks(rng: random.Random) -> Iterator[dict[str, str]]:
    """Yield distinct tasks without end."""
    seen = set()
    while True:
        numbers = rng.random() < 0.6
        steps, results = (NUMBER_STEPS, NUMBER_RESULTS) if numbers else (TEXT_STEPS, TEXT_RESULTS)
        kind, last = rng.choice(results)
        filled = [_fill(step, rng) for step in (*rng.sample(steps, rng.choice((2, 2, 3))), last)]
        text = ", then ".join(step.text for step in filled[:-1])
        if text + filled[-1].text in seen:
            continue
        seen.add(text + filled[-1].text)
        inputs = [_numbers(rng) if numbers else _letters(rng) for _ in range(EXAMPLES + TESTS)]
        solution = _solution([step.code for step in filled])
        cases = [(given, solution(given)) for given in inputs]
        if len({repr(result) for _, result in cases}) > 3:  # otherwise a constant would pass most tests
            yield _row("values: list[int]" if numbers else "text: str", kind, text, filled[-1].text, cases)


def _fill(step: Step, rng: random.Random) -> Step:
    number = rng.randint(2, 9)
    return Step(step.text.format(k=number), step.code.format(k=number))


def _solution(codes: list[str]) -> Callable[[Any], Any]:
    def solution(x: Any) -> Any:
        for code in codes:
            x = eval(code, {"x": x})
        return x

    return solution


def _numbers(rng: random.Random) -> list[int]:
    return [rng.randint(-30, 60) for _ in range(rng.randint(3, 12))]


def _letters(rng: random.Random) -> str:
    return "".join(rng.choice("abcdeiorstuz") for _ in range(rng.randint(3, 14)))


def _row(argument: str, kind: str, steps: str, result: str, cases: list[tuple[Any, Any]]) -> dict[str, str]:
    name = "transform"
    examples = "".join(f"    >>> {name}({given!r})\n    {value!r}\n" for given, value in cases[:EXAMPLES])
    what = f"{steps[0].upper()}{steps[1:]}. Return {result}."
    code = f'def {name}({argument}) -> {kind}:\n    """{what}\n\n{examples}    """'
    answer = {"entry_point": name, "tests": [f"assert {name}({given!r}) == {value!r}" for given, value in cases]}
    return {"problem": f"{OPENING}\n```python\n{code}\n```", "answer": json.dumps(answer)}


def main() -> None:
    """Write the tasks; exit with code 2 for invalid options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=4000, help="training tasks (default: 4000)")
    parser.add_argument("--val", type=int, default=64, help="validation tasks (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the tasks (default: 0)")
    options = parser.parse_args()
    try:
        if min(options.train, options.val) < 0 or options.train + options.val > MOST_TASKS:
            numbers = f"{options.train} and {options.val}"
            raise UserError("--train, --val", numbers, "out of range", f"choose 0 to {MOST_TASKS} tasks in total")
        options.out.mkdir(parents=True, exist_ok=True)
        rows = tasks(random.Random(options.seed))
        for name, number in (("val", options.val), ("train", options.train)):
            lines = [json.dumps(row) + "\n" for row in islice(rows, number)]
            (options.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    except (UserError, OSError) as error:
        parser.exit(2, f"make_function_tasks: {error}\n")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()

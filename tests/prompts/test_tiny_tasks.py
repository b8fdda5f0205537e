"""Embedded tasks: correct worked solutions."""

import random
from itertools import islice

import pytest

from fireopd.prompts import tiny_tasks
from fireopd.types import Prompt
from fireopd.verifiers import FinalAnswer


@pytest.mark.parametrize("task", tiny_tasks.TASKS)
def test_solutions_are_right_by_another_route(task):
    for problem in islice(tiny_tasks.problems(task, 0, held_out=False), 300):
        if task == "math":
            first, *operations = problem.text.split(";")
            value = int(first)
            for operation in operations:
                value = eval(f"{value}{operation}")
                assert 0 <= value <= 99
            assert str(value) == problem.answer
        else:
            operations, text = problem.text.split()
            for operation in operations.split("|"):
                letters = list(text)
                if operation == "rev":
                    letters.reverse()
                elif operation == "sort":
                    letters.sort()
                elif operation == "rot":
                    letters.append(letters.pop(0))
                else:
                    letters[0], letters[-1] = letters[-1], letters[0]
                text = "".join(letters)
            assert text == problem.answer
        assert FinalAnswer()(Prompt((), "t", task, problem.answer, "0"), problem.solution) == 1


def test_solutions_have_the_promised_length():
    generator = random.Random(0)
    for task in tiny_tasks.TASKS.values():
        lengths = [len(task(generator).solution) for _ in range(500)]
        assert min(lengths) >= 12
        assert max(lengths) <= 60


def test_held_out_problems_are_a_tenth():
    generator = random.Random(0)
    share = sum(tiny_tasks.math_problem(generator).held_out for _ in range(3000)) / 3000
    assert 0.07 < share < 0.13


@pytest.mark.parametrize(
    ("response", "answer", "grade"),
    [("3+4=7;#7", "7", 1), ("#7;#8", "7", 0), ("# 7 ", "7", 1), ("7", "7", 0), ("#", "7", 0), ("#7", None, 0)],
)
def test_final_answer(response, answer, grade):
    assert FinalAnswer()(Prompt((), "t", "math", answer, "0"), response) == grade


def test_without_a_marker_the_whole_response_counts():
    assert FinalAnswer("")(Prompt((), "t", "math", "yes", "0"), " yes\n") == 1

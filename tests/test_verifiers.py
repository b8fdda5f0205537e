"""Verifiers: what counts as right, and as the same vote."""

import pytest

from fireopd.types import Prompt
from fireopd.verifiers import MathVerify


def grade(answer, response):
    return MathVerify()(Prompt((), "t", "math", answer, "0"), response)


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("7 + 5 = 12. The answer is \\boxed{12}.", 1.0),
        ("So she has 12 apples", 1.0),
        ("She has 12.0 dollars left", 1.0),
        ("\\boxed{5+7}", 1.0),
        ("12 apples and then 13", 0.0),
        ("\\boxed{13}", 0.0),
        ("no number at all", 0.0),
        ("", 0.0),
    ],
)
def test_an_answer_is_right_if_it_is_mathematically_equal(response, right):
    assert grade("12", response) == right


def test_fractions_are_compared_exactly():
    assert grade("\\frac{1}{2}", "\\boxed{0.5}") == 1.0
    assert grade("1/2", "\\boxed{\\frac{2}{4}}") == 1.0
    assert grade("1/3", "\\boxed{0.33}") == 0.0


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        (r"\sqrt{3}", r"\sqrt{3}"),
        ("x^2+1", "1+x^2"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"$\frac{\pi}{2}$", r"\pi/2"),
        (r"\boxed{72}", "72"),
        ("1,000", "1000"),
    ],
)
def test_reference_answers_are_read_whole_bare_latex_too(answer, same):
    assert grade(answer, rf"so the answer is \boxed{{{same}}}.") == 1.0
    assert grade(answer, r"so the answer is \boxed{3}.") == 0.0


def test_without_a_reference_nothing_is_right():
    assert grade(None, "\\boxed{12}") == 0.0


def test_equal_expressions_are_one_vote():
    votes = [MathVerify().final_answer(text) for text in ("\\boxed{12}", "so it is 12", "13", "none")]
    assert votes == ["12", "12", "13", None]

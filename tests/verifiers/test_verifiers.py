"""Verifiers that compare texts."""

import pytest

from fireopd.errors import UserError
from fireopd.types import Prompt
from fireopd.verifiers import ExactMatch, FinalAnswer, Grade


def prompt(answer):
    return Prompt((), "t", "words", answer, "0")


@pytest.mark.parametrize(
    ("response", "settings", "right"),
    [
        ("An Apple", {}, 1.0),
        ("  An \n Apple\t", {}, 1.0),
        ("an apple", {}, 0.0),
        ("an apple", {"ignore_case": True}, 1.0),
        ("An  Apple", {"ignore_blanks": False}, 0.0),
        ("An Apple", {"ignore_blanks": False}, 1.0),
        ("AnApple", {}, 0.0),
        ("", {}, 0.0),
    ],
)
def test_exact_match_compares_after_what_is_to_be_ignored(response, settings, right):
    assert ExactMatch(**settings)(prompt("An Apple"), response) == right
    assert ExactMatch(**settings)(prompt(None), response) == 0.0


def test_responses_that_match_alike_are_one_vote():
    assert ExactMatch(ignore_case=True).final_answer(" A\nb") == ExactMatch(ignore_case=True).final_answer("a B")


def test_final_answer_is_what_follows_the_last_marker():
    assert FinalAnswer("##")(prompt("7 "), "## 5, no: ## 7") == 1.0
    assert FinalAnswer("##")(prompt("7"), "7") == 0.0
    assert FinalAnswer("")(prompt("7"), " 7\n") == 1.0


def test_grading_many_is_grading_each():
    grades = FinalAnswer().grade([prompt("7"), prompt("8"), prompt(None)], ["#7", "#7", "none"])
    assert grades == [Grade(1.0, "7"), Grade(0.0, "7"), Grade(0.0, None)]


@pytest.mark.parametrize("verifier", [FinalAnswer(), FinalAnswer(""), ExactMatch(), ExactMatch(ignore_blanks=False)])
def test_an_empty_reference_is_refused_and_matches_nothing(verifier):
    verifier.check("ours", [prompt("7"), prompt(None)])
    for empty in ("", " \n"):
        with pytest.raises(UserError, match=r"ours: '0': its reference answer is empty. Give it an answer"):
            verifier.check("ours", [prompt("7"), prompt(empty)])
        assert [verifier(prompt(empty), response) for response in ("#", "", " \n", "# \n")] == [0.0] * 4

"""Grading of a batch, each response by the verifier of its prompt's source."""

import pytest
import torch

from fireopd.types import Prompt
from fireopd.verifiers import FinalAnswer, Verifier
from fireopd.verifiers.grading import grade, rewards_and_votes


class Length(Verifier):
    def __call__(self, prompt, response):
        return len(response) / 10

    def final_answer(self, response):
        return response[0]


def test_each_response_is_graded_by_the_verifier_of_its_source():
    verifiers = {"answers": FinalAnswer(), "lengths": Length()}
    rows = [("1;#2", "answers"), ("1;#2", "lengths"), ("1;#3", "answers"), ("12", "lengths"), ("12", "answers")]
    prompts = [Prompt((), "t", "t", "2", str(n), source=source) for n, (_, source) in enumerate(rows)]
    rewards, votes = rewards_and_votes(grade(prompts, [text for text, _ in rows], verifiers))
    torch.testing.assert_close(rewards, torch.tensor([1.0, 0.4, 0.0, 0.2, 0.0]))
    assert votes.dtype == torch.int64
    assert votes[1] == votes[3] >= 0, "both begin with 1"
    assert 0 <= votes[0] != votes[2] >= 0
    assert votes[4] == -1


def test_nothing_to_grade():
    assert [part.tolist() for part in rewards_and_votes(grade([], [], {}))] == [[], []]


def test_a_source_without_a_verifier():
    with pytest.raises(ValueError, match="the prompt source has no verifier for the responses to p$"):
        grade([Prompt((), "t", "t", None, "p")], ["1"], {})
    message = "the prompt source 'a' has no verifier for the responses to p; the sources with a verifier are b, c"
    with pytest.raises(ValueError, match=message):
        grade([Prompt((), "t", "t", None, "p", source="a")], ["1"], {"b": FinalAnswer(), "c": FinalAnswer()})

"""Prompts of the embedded tasks."""

import pytest

from fireopd.prompts import TinyPrompts
from fireopd.verifiers import FinalAnswer


def test_training_and_held_out_problems_are_disjoint_and_seeded():
    source = TinyPrompts(num_training=400, num_validation=50)
    training = {seed: [text.id for text in source.training(seed)] for seed in (1, 2)}
    held_out = [text.id for text in source.validation()]
    assert len(held_out) == len(set(held_out)) == 100
    assert not set(held_out) & (set(training[1]) | set(training[2]))
    assert training[1] != training[2]
    assert training[1] == [text.id for text in source.training(1)]


def test_rows_go_to_the_teacher_of_their_task():
    texts = TinyPrompts(teachers={"math": "alice", "code": "bob"}, num_training=6).training(0)
    assert [(text.task, text.teacher) for text in texts] == [("math", "alice"), ("code", "bob")] * 3


def test_the_verifier_of_a_source_is_its_own():
    source = TinyPrompts(num_training=2, num_validation=1, verifier=FinalAnswer("="))
    assert source.verifiers == {"": FinalAnswer("=")}
    assert {text.source for text in (*source.training(0), *source.validation())} == {""}


def test_an_unknown_embedded_task():
    with pytest.raises(ValueError, match="unknown task 'law'; the embedded tasks are math, code"):
        TinyPrompts(teachers={"law": "alice"})

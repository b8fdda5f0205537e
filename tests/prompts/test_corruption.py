"""Corrupted prompts: shares, seeds, what is changed and what is not."""

from collections import Counter
from dataclasses import replace

import pytest

from fireopd.errors import UserError
from fireopd.prompts import JunkPrompts, MisroutedPrompts, TinyPrompts
from fireopd.testing import check_prompts

SOURCE = TinyPrompts(num_training=40, num_validation=4)


def changed(source, seed=1):
    """Return the rows that differ from those of the plain source."""
    pairs = zip(source.training(seed), SOURCE.training(seed), strict=True)
    return {row for row, (own, plain) in enumerate(pairs) if own != plain}


@pytest.mark.parametrize("kind", [MisroutedPrompts, JunkPrompts])
def test_the_share_holds_for_each_task_and_follows_the_seed(kind):
    check_prompts(kind(SOURCE, 0.25))
    rows = changed(kind(SOURCE, 0.25))
    assert Counter(row % 2 for row in rows) == {0: 5, 1: 5}  # the tasks alternate
    assert rows < changed(kind(SOURCE, 0.5))
    assert rows != changed(kind(SOURCE, 0.25), seed=2)
    assert changed(kind(SOURCE, 0.0)) == set()
    assert kind(SOURCE, 1.0).validation() == SOURCE.validation()
    assert kind(SOURCE, 1.0).verifiers == SOURCE.verifiers
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got"):
            kind(SOURCE, share)


def test_misrouted_prompts_differ_in_the_teacher_alone():
    for own, plain in zip(MisroutedPrompts(SOURCE, 1.0).training(1), SOURCE.training(1), strict=True):
        assert own == replace(plain, teacher={"math": "code", "code": "math"}[plain.task])


def test_a_source_with_a_single_teacher_cannot_be_misrouted():
    source = TinyPrompts({"math": "math"}, num_training=4)
    with pytest.raises(UserError, match=r"data.prompts.share: 0.5: the only teacher of the source is math"):
        MisroutedPrompts(source, 0.5).training(1)
    assert MisroutedPrompts(source, 0.0).training(1) == source.training(1)


def test_junk_has_the_characters_of_the_problem_and_its_answer():
    junk = JunkPrompts(SOURCE, 1.0).training(1)
    for own, plain in zip(junk, SOURCE.training(1), strict=True):
        (message,), (before,) = own.content, plain.content
        assert (message["role"], sorted(message["content"])) == ("user", sorted(before["content"]))
        assert own == replace(plain, content=own.content, solution=None)
    assert sum(own.content != plain.content for own, plain in zip(junk, SOURCE.training(1), strict=True)) > 35


def test_corruptions_nest():
    both = MisroutedPrompts(JunkPrompts(SOURCE, 0.5), 0.5)
    assert changed(both) == changed(JunkPrompts(SOURCE, 0.5)) | changed(MisroutedPrompts(SOURCE, 0.5))


def test_problems_reported_by_number_of_steps():
    texts = TinyPrompts({"math": "t"}, num_training=60, num_validation=0, by_steps=True).training(1)
    assert {text.task for text in texts} == {"math_2", "math_3", "math_4", "math_5"}
    assert all(text.solution.count(";") == int(text.task[-1]) for text in texts)

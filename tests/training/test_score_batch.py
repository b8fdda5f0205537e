"""Models read a batch for the signals that are declared, and for no others."""

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.models import make_model, teachers_of, wide_model

from fireopd.models.scorer import CausalScorer
from fireopd.training.score_batch import score_batch
from fireopd.training.stopwatch import Stopwatch
from fireopd.types.signals import SIGNALS

ALWAYS = {"sampling_logprobs", "student_logprobs"}
JOINTLY = ALWAYS | {"teacher_logprobs"}


@pytest.mark.parametrize(
    ("declared", "distributions", "found", "readers"),
    [
        (set(), False, ALWAYS, {"student"}),
        ({"student_entropy"}, False, ALWAYS | {"student_entropy"}, {"student"}),
        ({"teacher_logprobs"}, False, JOINTLY, {"student", "teacher/narrow", "teacher/wide"}),
        ({"teacher_entropy"}, False, JOINTLY | {"teacher_entropy"}, {"student", "teacher/narrow", "teacher/wide"}),
        ({"base_logprobs"}, False, ALWAYS | {"base_logprobs"}, {"student", "base"}),
        (set(), True, JOINTLY, {"student", "teacher/narrow", "teacher/wide"}),
        ({"topk_overlap"}, True, JOINTLY | {"topk_overlap"}, {"student", "teacher/narrow", "teacher/wide"}),
        (SIGNALS.keys(), True, SIGNALS.keys() - {"rewards"}, {"student", "base", "teacher/narrow", "teacher/wide"}),
    ],
    ids=[
        "nothing",
        "student_entropy",
        "teacher_logprobs",
        "teacher_entropy",
        "base",
        "distributions",
        "top_k",
        "everything",
    ],
)
def test_what_is_declared_is_read_and_no_more(declared, distributions, found, readers):
    rollouts, watch = rollouts_of(scored_batch(6, 11, teachers=["narrow", "wide"] * 3)), Stopwatch()
    teachers = teachers_of({"narrow": make_model("untied"), "wide": wide_model()}, 7)
    base = teachers_of({"base": make_model("tied")}, 7)["base"]
    batch, known = score_batch(
        rollouts,
        CausalScorer(make_model("tied"), 7),
        teachers,
        base,
        watch,
        signals=frozenset(declared),
        distributions=distributions,
        top_k=4,
        token_budget=40,
    )
    assert batch.signals.keys() == found
    assert watch.seconds.keys() == readers
    assert (known is not None) == distributions
    for name in found - {"sampling_logprobs"}:
        assert batch.signals[name][~rollouts.response_mask].abs().max() == 0
        assert batch.signals[name][rollouts.response_mask].abs().max() > 0
    if "base_logprobs" in found and "student_logprobs" in found:
        torch.testing.assert_close(batch.base_logprobs, batch.student_logprobs)

"""Filter by the teacher's surprise, against a plain loop."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.fakes import scored_batch

from fireopd.filters import SurpriseFilter
from fireopd.testing import check_filter


def looped(batch, threshold):
    """Return kept rows by plain arithmetic."""
    kept = []
    for tokens, mask in zip(batch.teacher_logprobs.tolist(), batch.response_mask.tolist(), strict=True):
        values = [value for value, inside in zip(tokens, mask, strict=True) if inside]
        mean = math.fsum(values) / len(values) if values else -math.inf
        kept.append(math.isfinite(mean) and mean >= threshold)
    return kept


@pytest.mark.parametrize("threshold", [-1.8, -1.5, -1.2, 0.0])
def test_rows_above_the_threshold_are_kept(threshold):
    batch = scored_batch(40, 12, seed=3, dtype=torch.float64)
    keep = SurpriseFilter(threshold)(batch).tolist()
    assert keep == looped(batch, threshold)
    assert threshold == 0 or 0 < sum(keep) < 40


def test_the_other_rows_have_no_effect():
    batch = scored_batch(20, 12, seed=5)
    alone = [SurpriseFilter()(batch.select([row])).item() for row in range(20)]
    assert SurpriseFilter()(batch).tolist() == alone


@pytest.mark.parametrize("bad", [-torch.inf, torch.nan])
def test_impossible_and_empty_responses_are_dropped(bad):
    batch = scored_batch(3, 6)
    logprobs = torch.where(batch.response_mask, -0.1, 0.0)
    logprobs[0, batch.response_mask[0].nonzero()[0]] = bad
    mask = batch.response_mask.clone()
    mask[1] = False
    batch = replace(batch, response_mask=mask, signals={"teacher_logprobs": logprobs})
    assert SurpriseFilter()(batch).tolist() == [False, False, True]
    assert SurpriseFilter(-9.0).reasons(batch)[2] == "teacher's mean log-prob -0.1, threshold -9"


@pytest.mark.parametrize("threshold", [0.1, float("nan")])
def test_the_threshold_has_a_range(threshold):
    with pytest.raises(ValueError, match="threshold must be at most 0, got"):
        SurpriseFilter(threshold)


def test_the_contract():
    check_filter(SurpriseFilter())

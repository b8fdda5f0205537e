"""Selections by disagreement and by accepted proposals, and weights by drift, against references in Python loops."""

import math

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import with_signals

from fireopd.weighters import AcceptedProposalWeighter, DisagreementWeighter, PrefixDiscrepancyWeighter


def rows_of(batch):
    for row, mask in enumerate(batch.response_mask):
        yield row, mask, batch.student_logprobs[row][mask].tolist(), batch.teacher_logprobs[row][mask].tolist()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.2])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_dial_opd_ranks_by_log_ratio_and_probability(share, exponent):
    batch = full_batch(dtype=torch.float64)
    selected = DisagreementWeighter(share, exponent)(batch)
    for row, mask, own, other in rows_of(batch):
        scores = [
            abs(t - s) ** (1 - exponent) * abs(math.exp(t) - math.exp(s)) ** exponent
            for s, t in zip(own, other, strict=True)
        ]
        number = max(1, round(share * len(scores)))
        best = sorted(range(len(scores)), key=lambda place, scores=scores: -scores[place])[:number]
        assert selected[row][mask].nonzero().squeeze(-1).tolist() == sorted(best)


def test_tokens_that_both_models_find_unlikely_rank_lower():
    """Both have the log-ratio log 10: 0.08 against 0.8, and 1e-4 against 1e-3."""
    batch = full_batch(seed=1)
    row = int(batch.lengths.argmax())
    first, second = batch.response_mask[row].nonzero().squeeze(-1).tolist()[:2]
    student = torch.full(batch.tokens.shape, -1.0)
    teacher = student.clone()
    student[row, first], teacher[row, first] = math.log(1e-4), math.log(1e-3)
    student[row, second], teacher[row, second] = math.log(0.08), math.log(0.8)
    batch = with_signals(batch, student_logprobs=student, teacher_logprobs=teacher)
    assert DisagreementWeighter(0.01)(batch)[row].nonzero().squeeze(-1).tolist() == [second]


def test_equal_models_have_no_score_but_a_token_is_selected():
    batch = full_batch()
    batch = with_signals(batch, teacher_logprobs=batch.student_logprobs)
    assert (DisagreementWeighter()(batch).sum(-1) > 0).all()


def test_selec_tkd_keeps_accepted_proposals():
    batch = full_batch()
    found = AcceptedProposalWeighter(top_k=3, rejected=0.25)(batch)
    assert torch.equal(found == 1.0, batch.teacher_rank <= 3)
    assert set(found[batch.response_mask].tolist()) == {0.25, 1.0}


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_iw_opd_weights_fall_with_the_accumulated_discrepancy(strength):
    batch = full_batch(dtype=torch.float64)
    found = PrefixDiscrepancyWeighter(strength)(batch)
    for row, mask, own, other in rows_of(batch):
        gaps = [abs(t - s) for s, t in zip(own, other, strict=True)]
        expected = [1 + strength * (1 - sum(gaps[:t]) / sum(gaps)) for t in range(len(gaps))]
        assert found[row][mask].tolist() == pytest.approx(expected)
        assert found[row][mask][0] == 1 + strength

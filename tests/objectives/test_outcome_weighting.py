"""Objectives in which the verdict weights the tokens, against references in Python loops."""

import math
from dataclasses import replace
from statistics import mean, median

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import with_signals

from fireopd.objectives import DualPathReverseKL, OutcomeAlignedReverseKL, ReverseKL, VerdictGatedReverseKL


def graded(groups=(0, 0, 0, 0, 1, 1, 1, 2), rewards=(1, 0, 1, 0, 1, 1, 1, 0)):
    batch = replace(full_batch(len(groups), dtype=torch.float64), groups=torch.tensor(groups))
    return with_signals(batch, rewards=torch.tensor(rewards, dtype=torch.float64))


def lists(batch, values):
    return [values[row][batch.response_mask[row]].tolist() for row in range(len(batch.teachers))]


def rows_of(batch):
    """Return group, verdict, and the log-probabilities of student and teacher of each row."""
    own, other = lists(batch, batch.student_logprobs), lists(batch, batch.teacher_logprobs)
    return list(zip(batch.groups.tolist(), (batch.rewards > 0.5).tolist(), own, other, strict=True))


def check(found, batch, expected):
    for own, other in zip(lists(batch, found), expected, strict=True):
        assert own == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_scope_learns_from_unlikely_correct_responses_and_from_familiar_mistakes(temperature):
    batch, expected = graded(), []
    rows = rows_of(batch)

    def perplexity(row):
        _, correct, own, other = row
        return math.exp(-mean(own)) ** (1 / temperature) if correct else math.exp(-mean(other)) ** (-1 / temperature)

    for row in rows:
        peers = [perplexity(peer) for peer in rows if peer[:2] == row[:2]]
        weight = len(peers) * perplexity(row) / sum(peers)
        _, correct, own, other = row
        expected.append([weight * (1.0 if correct else t - s) for s, t in zip(own, other, strict=True)])
    found = DualPathReverseKL(temperature).advantage(batch)
    check(found, batch, expected)
    assert not torch.equal(found, DualPathReverseKL(5.0).advantage(batch))


@pytest.mark.parametrize("sharpness", [1e-3, 2.0])
def test_r2_opd_keeps_the_mass_of_each_response(sharpness):
    batch, expected = graded(), []
    batch = replace(batch, finished=torch.arange(8) != 2)
    for finished, (_, correct, own, other) in zip(batch.finished.tolist(), rows_of(batch), strict=True):
        ratio = [t - s for s, t in zip(own, other, strict=True)]
        scale, z = median(map(abs, ratio)), 1 if correct else -1
        gates = [1 / (1 + math.exp(-sharpness * z * r / scale)) for r in ratio]
        factor = sum(map(abs, ratio)) / sum(g * abs(r) for g, r in zip(gates, ratio, strict=True))
        expected.append([factor * g * r for g, r in zip(gates, ratio, strict=True)] if finished else ratio)
    found = OutcomeAlignedReverseKL(sharpness).advantage(batch)
    check(found, batch, expected)
    plain = ReverseKL().advantage(batch).where(batch.response_mask, 0.0)
    torch.testing.assert_close(found.abs().sum(-1), plain.abs().sum(-1))
    torch.testing.assert_close(OutcomeAlignedReverseKL(0.0).advantage(batch), plain)


def test_a_sharp_gate_drops_what_the_verdict_denies():
    batch = graded()
    gated = VerdictGatedReverseKL().advantage(batch).where(batch.response_mask, 0.0)
    found = OutcomeAlignedReverseKL(1e6).advantage(batch)
    assert torch.equal(found != 0, gated != 0)


@pytest.mark.parametrize("scale", ["centered", "standardized"])
def test_grpd_scales_by_the_verdict_relative_to_the_group(scale):
    batch, expected = graded(), []
    rows = rows_of(batch)
    for group, correct, own, other in rows:
        verdicts = [float(peer[1]) for peer in rows if peer[0] == group]
        factor = abs(correct - mean(verdicts))
        if scale == "standardized" and factor > 0:
            spread = (sum((v - mean(verdicts)) ** 2 for v in verdicts) / (len(verdicts) - 1)) ** 0.5
            factor /= spread + 1e-6
        clip = max if correct else min
        expected.append([factor * clip(t - s, 0.0) for s, t in zip(own, other, strict=True)])
    objective = VerdictGatedReverseKL(scale=scale)
    check(objective.advantage(batch), batch, expected)
    assert objective.needs_groups
    assert not VerdictGatedReverseKL().needs_groups
    assert not objective.advantage(batch)[4:].any(), "groups of equal verdicts have no effect"

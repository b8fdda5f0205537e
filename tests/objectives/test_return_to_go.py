"""Returns-to-go against loops over the tokens, and against the exact gradient of the divergence of whole responses."""

import math

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import expected_gradient, random_state

from fireopd.objectives import BoundedReturnToGo, GeneralizedJSD, ReturnToGo, ReverseKL, SingleStepReturnToGo
from fireopd.types import ScoredBatch


def ratios(batch):
    gaps = batch.teacher_logprobs - batch.student_logprobs
    return [gaps[row][batch.response_mask[row]].tolist() for row in range(len(batch.teachers))]


def returns(values, discount, normalized, start=0):
    """Return sum_{i >= t + start} discount^(i - t) r_i, divided by the sum of the factors if normalized."""
    found = []
    for t in range(len(values)):
        factors = {i: discount ** (i - t) for i in range(t + start, len(values))}
        total = sum(factor * values[i] for i, factor in factors.items())
        weight = sum(factors.values())
        found.append(total / weight if normalized and weight else total)
    return found


def check(objective, batch, expected):
    advantage = objective.advantage(batch)
    for row, values in enumerate(expected):
        assert advantage[row][batch.response_mask[row]].tolist() == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("discount", [0.0, 0.7, 1.0])
def test_returns(discount, normalized):
    batch = full_batch(dtype=torch.float64)
    check(ReturnToGo(discount, normalized), batch, [returns(row, discount, normalized) for row in ratios(batch)])
    later = [returns(row, discount, normalized, start=1) for row in ratios(batch)]
    check(SingleStepReturnToGo(discount, normalized), batch, later)


def test_without_a_discount_nothing_is_added():
    batch = full_batch()
    assert torch.equal(
        ReturnToGo(0.0).advantage(batch)[batch.response_mask], ReverseKL().advantage(batch)[batch.response_mask]
    )
    assert not SingleStepReturnToGo(0.0).advantage(batch).any()
    logits, teacher, _ = random_state()
    exact = expected_gradient(GeneralizedJSD(1.0), logits, teacher)
    torch.testing.assert_close(expected_gradient(SingleStepReturnToGo(), logits, teacher), exact)


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_the_verdict_decides_the_sign_and_the_return_the_size(discount):
    batch, expected = full_batch(dtype=torch.float64), []
    for row, reward in zip(ratios(batch), batch.rewards.tolist(), strict=True):
        sums = returns(row, discount, normalized=False)
        typical = sum(map(abs, sums)) / len(sums)
        expected.append([g / (typical + abs(g)) + (1 if reward > 0.5 else -1) for g in sums])
    check(BoundedReturnToGo(discount), batch, expected)
    signs = BoundedReturnToGo(discount).advantage(batch).sign()
    assert (signs == torch.where(batch.rewards > 0.5, 1, -1)[:, None])[batch.response_mask].all()


def test_equal_models_leave_the_verdict():
    batch = full_batch()
    same = dict.fromkeys(("student_logprobs", "teacher_logprobs"), batch.student_logprobs)
    batch = ScoredBatch(**{**{f: getattr(batch, f) for f in batch.__slots__}, "signals": dict(batch.signals) | same})
    verdict = torch.where(batch.rewards > 0.5, 1.0, -1.0)[:, None].expand(batch.tokens.shape)
    assert torch.equal(BoundedReturnToGo().advantage(batch), verdict)


@pytest.mark.parametrize("objective", [ReturnToGo(1.0), SingleStepReturnToGo(1.0, length_normalization=False)], ids=str)
def test_the_expected_gradient_is_that_of_whole_responses(objective):
    """Responses of two tokens of a vocabulary of three: 3 + 9 logits, an exact sum over all nine responses."""
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    logits.requires_grad_()

    def joint(values):
        """Return log-probabilities [3, 3] of all responses of a model with one state, then three."""
        steps = values.log_softmax(-1)
        return steps[0][:, None] + steps[1:]

    p, q = joint(logits), joint(teacher)
    (exact,) = torch.autograd.grad((p.exp() * (p - q)).sum(), logits)
    steps, others = logits.log_softmax(-1), teacher.log_softmax(-1)
    loss = torch.zeros((), dtype=torch.float64)
    for first, second in [(a, b) for a in range(3) for b in range(3)]:
        own = torch.stack([steps[0, first], steps[1 + first, second]])
        other = torch.stack([others[0, first], others[1 + first, second]])
        signals = {"student_logprobs": own.detach()[None], "teacher_logprobs": other[None]}
        mask = torch.ones(1, 2, dtype=torch.bool)
        batch = ScoredBatch(mask.long(), mask, torch.zeros(1), mask[:, 0], ("t",), signals)
        term = -(objective.advantage(batch)[0] * own).sum()
        if isinstance(objective, SingleStepReturnToGo):
            states = torch.tensor([0, 1 + first])
            term = term + objective.divergence(steps[states], others[states]).sum()
        loss = loss + own.sum().exp().detach() * term
    (found,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def test_long_responses_keep_their_precision():
    mask = torch.ones(1, 5000, dtype=torch.bool)
    signals = {"student_logprobs": torch.zeros(1, 5000), "teacher_logprobs": torch.full((1, 5000), -1.0)}
    batch = ScoredBatch(mask.long(), mask, torch.zeros(1), mask[:, 0], ("t",), signals)
    found = ReturnToGo(0.99).advantage(batch)[0]
    assert found[0].item() == pytest.approx(-(1 - 0.99**5000) / 0.01, rel=1e-5)
    assert math.isclose(ReturnToGo(1.0).advantage(batch)[0, 0].item(), -5000, rel_tol=1e-6)


def test_a_discount_beyond_one_is_refused():
    for objective in (ReturnToGo, BoundedReturnToGo, SingleStepReturnToGo):
        with pytest.raises(ValueError, match="discount must be in"):
            objective(1.1)

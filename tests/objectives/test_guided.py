"""TrOPD and SG-OPD: gates, expected gradients, and tokens of teachers."""

import math
from dataclasses import replace

import torch
from helpers.fakes import full_batch, small_batch
from helpers.small_vocabulary import by_differences, expected_gradient, of_advantages, one_token_batch, random_state

from fireopd.method import Method
from fireopd.objectives import AcceptedReverseKL, ExtrapolatedReverseKL, ReverseKL, SignConsistentReverseKL
from fireopd.types import Source
from fireopd.types.row_uniforms import row_uniforms, token_uniforms


def test_uniform_numbers_of_tokens():
    batch, objective = full_batch(), AcceptedReverseKL()
    drawn = token_uniforms(batch, objective, 1)
    assert drawn[~batch.response_mask].abs().max() == 0
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert torch.equal(token_uniforms(batch.select([3, 1]), objective, 1), drawn[[3, 1]])
    assert not torch.equal(token_uniforms(batch, objective, 2), drawn)
    assert not torch.equal(token_uniforms(replace(batch, policy_version=1), objective, 1), drawn)
    assert row_uniforms(batch, objective, 1).unique().numel() == len(batch.teachers)


def test_tokens_are_accepted_with_the_ratio_of_probabilities():
    """Over 2,000 seeds, within five standard deviations."""
    _, teacher, student = random_state(seed=6)
    for token in range(3):
        batch, expected = one_token_batch(student, teacher, token), min(1.0, (teacher - student)[token].exp().item())
        accepted = [AcceptedReverseKL(seed=seed).coefficient(batch)[0, 1].item() == 0 for seed in range(2000)]
        deviation = math.sqrt(expected * (1 - expected) / 2000)
        assert abs(sum(accepted) / 2000 - expected) <= 5 * deviation


def test_gradient_of_accepted_and_rejected_tokens():
    """TrOPD, written out: for the tokens that one seed accepts."""
    logits, teacher, _ = random_state(seed=7)
    student = logits.detach().log_softmax(-1)
    objective, p, q = AcceptedReverseKL(top_k=3), student.exp().tolist(), teacher.exp().tolist()
    drawn = [token_uniforms(one_token_batch(student, teacher, v), objective, 0)[0, 1].item() for v in range(7)]
    accepted = [u < min(1.0, b / a) for u, a, b in zip(drawn, p, q, strict=True)]
    assert 0 < sum(accepted) < 7
    top = sorted(range(7), key=lambda v: -q[v])[:3]
    forward = by_differences(lambda own: sum(q[v] * math.log(q[v] / own[v]) for v in top), logits)
    advantages = [math.log(b / a) * yes for a, b, yes in zip(p, q, accepted, strict=True)]
    rejected = sum(a for a, yes in zip(p, accepted, strict=True) if not yes)
    expected = of_advantages(logits, advantages) + rejected * forward
    torch.testing.assert_close(expected_gradient(objective, logits, teacher), expected, rtol=1e-6, atol=1e-8)


def marked(batch, source, rows=slice(0, 2)):
    """Return the batch with another author of the first two rows."""
    sources = batch.response_mask.to(torch.uint8) * Source.STUDENT
    sources[rows] = batch.response_mask[rows].to(torch.uint8) * source
    return replace(batch, sources=sources)


def test_tokens_of_other_authors_are_guided_by_the_forward_kl():
    plain, objective = full_batch(), AcceptedReverseKL(guidance=0.25)
    for source in (Source.TEACHER, Source.GIVEN):
        targets = Method(objective=objective).targets(marked(plain, source))
        own = Method(objective=objective).targets(plain)
        assert targets.advantage[:2].abs().max() == 0
        assert set(targets.coefficient[:2][plain.response_mask[:2]].tolist()) == {0.25}
        assert torch.equal(targets.coefficient[2:], own.coefficient[2:])
        assert torch.equal(targets.advantage[2:], own.advantage[2:])


def test_the_strength_depends_on_verifier_and_teacher():
    """SG-OPD: each combination of verdict and sign of the log-ratio."""
    batch = small_batch()
    mask = batch.response_mask
    teacher = torch.where(mask, torch.tensor([-0.5, -2.0, -0.5, -2.0])[:, None], 0.0)
    student, base = torch.where(mask, -1.0, 0.0), torch.where(mask, -3.0, 0.0)
    signals = dict(batch.signals) | {"teacher_logprobs": teacher, "student_logprobs": student, "base_logprobs": base}
    batch = replace(batch, signals=signals | {"rewards": torch.tensor([1.0, 1.0, 0.0, 0.0])})
    targets = Method(objective=SignConsistentReverseKL(1.8, 0.5)).targets(batch)
    strengths = [1.8, 0.5, 0.5, 1.8]
    for row, (own, strength) in enumerate(zip((-0.5, -2.0, -0.5, -2.0), strengths, strict=True)):
        expected = (own + 1.0) + (strength - 1) * (own + 3.0)
        torch.testing.assert_close(targets.advantage[row][mask[row]], torch.full((int(mask[row].sum()),), expected))
    assert targets.coefficient.abs().max() == 0


def test_equal_strengths_are_extrapolation_and_strength_1_plain_opd():
    batch = full_batch()
    for objective, other in (
        (SignConsistentReverseKL(1.3, 1.3), ExtrapolatedReverseKL(1.3)),
        (SignConsistentReverseKL(1.0, 1.0), ReverseKL()),
    ):
        own, plain = Method(objective=objective).targets(batch), Method(objective=other).targets(batch)
        torch.testing.assert_close(own.advantage, plain.advantage)
    of_teacher = Method(objective=SignConsistentReverseKL()).targets(marked(batch, Source.TEACHER))
    assert of_teacher.advantage[:2].abs().max() == 0
    assert torch.equal(of_teacher.coefficient[:2], batch.response_mask[:2].float())

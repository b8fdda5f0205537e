"""Authors of tokens: what each objective is exact for, and what is refused."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import expected_gradient, logs, one_token_batch, random_state

from fireopd.algorithm import fire_loss, importance_weights, loss_fractions
from fireopd.cli.entry_points import load_plugins
from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.models.distributions import TeacherDistributions
from fireopd.objectives import AcceptedReverseKL, GeneralizedJSD, ReverseKL
from fireopd.objectives.sources import check_sources
from fireopd.training.objective_divergence import divergence_comparison
from fireopd.types import Source

WRITTEN = (Source.STUDENT, Source.TEACHER, Source.GIVEN)
BUILT_IN = [p.strategy for p in load_plugins() if p.group == "fireopd.objectives" and p.package == "fireopd"]
GATED = ("AcceptedReverseKL", "SignConsistentReverseKL")
"""Objectives that treat tokens of other authors in another way than those of the student."""


def gradients(objective, source):
    """Return the gradient on the logits for each token that could have been written, [V, V]."""
    logits, teacher, base = random_state(seed=5)
    student = logits.log_softmax(-1)
    method = Method(objective=objective, importance_cap=5.0)
    found = []
    for token in range(len(logits)):
        signals = dict.fromkeys(("teacher_entropy", "student_entropy", "reverse_kl", "topk_reverse_kl"), 0.7)
        signals |= {"topk_forward_kl": 0.3, "topk_overlap": 0.5, "student_topk_mass": 0.9, "teacher_rank": 1.0}
        signals |= {"base_logprobs": base[token], "rewards": torch.ones(1, dtype=torch.float64)}
        batch = one_token_batch(student, teacher, token, **signals)
        batch = replace(batch, sources=batch.response_mask.to(torch.uint8) * source)
        targets, divergence = method.targets(batch), None
        comparison = divergence_comparison(objective.at(0), TeacherDistributions((), ()))
        if comparison is not None:
            measured = comparison.measure(student[None], teacher[None], torch.tensor([token]))["divergence"]
            divergence = torch.cat([torch.zeros_like(measured), measured])[None]
        logprobs = torch.stack([torch.zeros((), dtype=torch.float64), student[token]])[None]
        loss = fire_loss(
            logprobs, batch.student_logprobs, targets, loss_fractions(targets.mask, "token"), 0.2, divergence
        )
        found.append(torch.autograd.grad(loss, logits, retain_graph=True)[0])
    return torch.stack(found), student.exp().detach(), teacher.exp()


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.__name__)
def test_an_objective_is_exact_for_an_author_or_refuses_its_tokens(kind):
    """Exact: the expected gradient at a state is the same whoever wrote the token."""
    objective = kind()
    for source in WRITTEN[1 : 3 if objective.trains_given else 2]:
        if source not in objective.exact_for:
            with pytest.raises(UserError, match=r"model.objective: '\w+': its gradient is wrong at"):
                gradients(objective, source)
            continue
        each, student, teacher = gradients(objective, source)
        by_teacher, by_student = teacher @ each, student @ each
        torch.testing.assert_close(by_teacher, by_student, rtol=1e-9, atol=1e-12)
        if kind.__name__ not in GATED:
            own = gradients(objective, Source.STUDENT)[0]
            torch.testing.assert_close(by_teacher, student @ own, rtol=1e-9, atol=1e-12)


def test_the_log_ratio_is_wrong_at_tokens_of_the_teacher():
    """The reason for the refusal: at equal weights, its expected gradient under the teacher is not that of the KL."""
    objective = ReverseKL()
    logits, teacher, _ = random_state(seed=5)
    exact = expected_gradient(objective, logits, teacher)
    each, student, of_teacher = gradients(objective, Source.STUDENT)
    torch.testing.assert_close(student @ each, exact, rtol=1e-9, atol=1e-12)
    assert (of_teacher @ each - exact).abs().max() > 0.1


def test_sources_of_a_run_are_refused_by_name():
    everything = frozenset(WRITTEN)
    check_sources(GeneralizedJSD(), everything, "data.plan TeacherMix")
    check_sources(ReverseKL(), frozenset({Source.STUDENT, Source.GIVEN}), "data.plan SolutionPrefix")
    with pytest.raises(UserError) as refused:
        check_sources(ReverseKL(), everything, "data.plan TeacherMix")
    assert "tokens that a teacher writes, which data.plan TeacherMix has" in str(refused.value)
    assert "Use a divergence over the vocabulary" in str(refused.value)
    assert AcceptedReverseKL().trains_given
    assert not AcceptedReverseKL(guidance=0.0).trains_given


def test_importance_weights_are_those_of_the_student_s_tokens():
    batch = full_batch()
    place = torch.arange(batch.tokens.shape[1]) % 3 == 0
    sources = torch.where(batch.response_mask, torch.where(place, Source.TEACHER, Source.STUDENT), 0).to(torch.uint8)
    plain = importance_weights(batch, batch.response_mask, 5.0)
    mixed = importance_weights(replace(batch, sources=sources), batch.response_mask, 5.0)
    assert torch.equal(mixed, torch.where(batch.response_mask & place, 1.0, plain))
    assert not torch.equal(mixed, plain)


def test_supervised_distillation_is_the_divergence_at_the_teacher_s_tokens():
    """Loss and gradient of a mix of 1 against a mean over tokens, written out."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    mask = torch.tensor([[False, True, True, True], [False, True, True, False]])
    tokens = torch.randint(0, 5, (2, 4), generator=generator)
    student = logits.log_softmax(-1)
    chosen = student.gather(-1, tokens[..., None]).squeeze(-1)
    naive = torch.stack([(t.exp() * (t - s)).sum() for s, t in zip(student[mask], teacher[mask], strict=True)]).mean()
    batch = one_token_batch(logs((0.5, 0.5))[0], logs((0.5, 0.5))[0], 0)
    signals = {name: torch.where(mask, chosen.detach(), 0.0) for name in ("student_logprobs", "teacher_logprobs")}
    signals["sampling_logprobs"] = torch.where(mask, -1.0, 0.0).double()
    batch = replace(
        batch,
        tokens=tokens,
        response_mask=mask,
        groups=torch.arange(2),
        finished=torch.ones(2, dtype=torch.bool),
        teachers=("t", "t"),
        signals=signals,
        sources=mask.to(torch.uint8) * Source.TEACHER,
    )
    objective = GeneralizedJSD(beta=0.0)
    targets = Method(objective=objective).targets(batch)
    divergence = torch.zeros(2, 4, dtype=torch.float64).masked_scatter(
        mask, objective.divergence(student[mask], teacher[mask])
    )
    shares = loss_fractions(targets.mask, "token")
    loss = fire_loss(chosen, signals["student_logprobs"], targets, shares, 0.2, divergence)
    torch.testing.assert_close(loss, naive, rtol=1e-12, atol=0)
    own, expected = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, naive))
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)

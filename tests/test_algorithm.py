"""The algorithm against a naive reference, hand-computed values, invariances and edge cases."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.fakes import scored_batch
from helpers.golden import RECORDED, golden_batch

from fireopd.algorithm import fire_loss, fire_targets, kept, loss_fractions, normalize
from fireopd.filters import KeepAll, LengthFilter, TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.objectives import EntropyGatedKL, ReverseKL
from fireopd.training.micro_batches import micro_batches
from fireopd.weighters import EntropyWeighter, UniformWeighter


def naive(batch, drop_fraction, alpha, beta, normalization, reduction, cap, clip, logprobs):
    """Return keep, weights and loss of FiRe-OPD, computed in Python loops from the formulas of the paper."""
    rows = range(len(batch.teachers))
    places = [[t for t in range(batch.tokens.shape[1]) if batch.response_mask[i, t]] for i in rows]
    value = {name: signal.double().tolist() for name, signal in batch.signals.items()}
    scores = [sum(value["teacher_logprobs"][i][t] for t in places[i]) / len(places[i]) for i in rows]
    position = drop_fraction * (len(scores) - 1)
    low, ordered = math.floor(position), sorted(scores)
    threshold = ordered[low] + (position - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])
    keep = [score >= threshold for score in scores]
    largest = {n: max(value[n][i][t] for i in rows for t in places[i]) for n in ("teacher_entropy", "student_entropy")}
    weight = {}
    for i in rows:
        for t in places[i]:
            confidence = 1 - value["teacher_entropy"][i][t] / largest["teacher_entropy"]
            confusion = value["student_entropy"][i][t] / largest["student_entropy"]
            weight[i, t] = (1 + alpha * confidence) * (1 + beta * confusion)
    everything = sum(weight.values()) / len(weight)
    of_row = [sum(weight[i, t] for t in places[i]) / len(places[i]) for i in rows]
    mean = {"none": lambda i: 1.0, "batch": lambda i: everything, "trajectory": lambda i: of_row[i]}[normalization]
    weight = {(i, t): w / mean(i) for (i, t), w in weight.items()}
    sums, counts = [], []
    for i in rows:
        if not keep[i]:
            continue
        terms = []
        for t in places[i]:
            old, new = value["student_logprobs"][i][t], logprobs[i, t].item()
            importance = min(math.exp(old - value["sampling_logprobs"][i][t]), cap)
            gain = weight[i, t] * importance * (value["teacher_logprobs"][i][t] - old)
            ratio = math.exp(new - old)
            terms.append(-min(ratio * gain, min(max(ratio, 1 - clip), 1 + clip) * gain))
        sums.append(sum(terms))
        counts.append(len(terms))
    by_row = sum(s / c for s, c in zip(sums, counts, strict=True)) / len(sums)
    return keep, weight, sum(sums) / sum(counts) if reduction == "token" else by_row


@pytest.mark.parametrize("reduction", ["token", "trajectory"])
@pytest.mark.parametrize("normalization", ["trajectory", "batch", "none"])
def test_targets_and_loss_equal_the_naive_reference(normalization, reduction):
    batch = scored_batch(dtype=torch.float64, seed=3)
    logprobs = batch.student_logprobs + 0.4 * torch.randn(batch.tokens.shape, dtype=torch.float64)
    filter_, weighter = TeacherLikelihoodFilter(0.3), EntropyWeighter(1.5, 0.5)
    targets = fire_targets(
        batch, kept(batch, filter_), weighter, ReverseKL(), normalization=normalization, importance_cap=2.0
    )
    shares = loss_fractions(targets.mask, reduction)
    loss = fire_loss(logprobs, batch.student_logprobs, targets, shares, clip_ratio=0.2)
    keep, weight, expected = naive(batch, 0.3, 1.5, 0.5, normalization, reduction, 2.0, 0.2, logprobs)
    assert targets.keep.tolist() == keep
    assert not all(keep)
    for (i, t), value in weight.items():
        assert targets.weight[i, t].item() == pytest.approx(value if keep[i] else 0.0, rel=1e-12)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"seed{case['seed']}")
@pytest.mark.parametrize("answers", ["whole_batch", "micro_batch_of_one"])
def test_loss_and_gradient_equal_the_released_code(case, answers):
    now, batch = golden_batch(case)
    method = Method(
        TeacherLikelihoodFilter(case["drop_fraction"]),
        EntropyWeighter(case["alpha"], case["beta"]),
        normalization="batch",
        importance_cap=None,
        population="rollout_batch" if answers == "whole_batch" else "micro_batch_of_one",
    )
    targets = method.targets(batch)
    logprobs = now.clone().requires_grad_()
    shares = loss_fractions(targets.mask, "token" if answers == "whole_batch" else "trajectory")
    loss = fire_loss(logprobs, batch.student_logprobs, targets, shares, case["clip_ratio"])
    loss.backward()
    assert loss.item() == pytest.approx(case[answers]["loss"], abs=1e-5)
    torch.testing.assert_close(logprobs.grad, torch.tensor(case[answers]["grad_student_logprobs"]), atol=1e-5, rtol=0)


def test_weights_equal_numbers_worked_by_hand():
    """Two trajectories; maxima 2.0 and 1.6; raw weights [[2.4375, 2.625, 1.6875], [3.8, 1.0]]."""
    mask = torch.tensor([[True, True, True], [True, True, False]])
    entropy = {"teacher_entropy": torch.tensor([[0.1, 0.5, 1.0], [0.2, 2.0, 9.0]])}
    entropy |= {"student_entropy": torch.tensor([[0.4, 0.8, 0.2], [1.6, 0.0, 9.0]])}
    batch = replace(scored_batch(2, 3), response_mask=mask)
    batch = replace(batch, signals=dict(batch.signals) | entropy)

    def weights(population, normalization):
        method = Method(KeepAll(), EntropyWeighter(), normalization=normalization, population=population)
        return method.targets(batch).weight

    by_row = torch.tensor([[1.083333, 1.166667, 0.75], [1.583333, 0.416667, 0.0]])
    by_batch = torch.tensor([[1.055195, 1.136364, 0.730519], [1.645022, 0.432900, 0.0]])
    alone = torch.tensor([[1.204225, 1.267606, 0.528169], [1.583333, 0.416667, 0.0]])
    torch.testing.assert_close(weights("rollout_batch", "trajectory"), by_row, atol=5e-6, rtol=0)
    torch.testing.assert_close(weights("rollout_batch", "batch"), by_batch, atol=5e-6, rtol=0)
    torch.testing.assert_close(weights("micro_batch_of_one", "batch"), alone, atol=5e-6, rtol=0)


def test_the_filter_of_the_released_scripts_drops_no_trajectory():
    batch = scored_batch(10)
    together = Method(TeacherLikelihoodFilter(0.2)).targets(batch)
    alone = Method(TeacherLikelihoodFilter(0.2), population="micro_batch_of_one").targets(batch)
    assert together.keep.sum() == 8
    assert alone.keep.all()


def loss_and_gradient(batch, budget, reduction="token"):
    """Return the loss over micro-batches, and its gradient with respect to a table of log-probabilities."""
    method = Method(TeacherLikelihoodFilter(0.25), EntropyWeighter())
    targets = method.targets(batch)
    generator = torch.Generator().manual_seed(1)
    table = (0.3 * torch.rand(40, 40, generator=generator, dtype=torch.float64)).requires_grad_()
    rows = targets.keep.nonzero().squeeze(-1)
    shares = torch.zeros(targets.mask.shape, dtype=torch.float64)
    shares[rows] = loss_fractions(targets.mask[rows], reduction)
    total = torch.zeros((), dtype=torch.float64)
    for micro in micro_batches(batch, shares, slice(0, len(batch.teachers)), rows, budget):
        tokens = micro.tokens
        old_logprobs = batch.student_logprobs[micro.rows, : tokens.shape[1]]
        moved = torch.cat([torch.zeros(len(tokens), 1), table[tokens[:, :-1], tokens[:, 1:]]], dim=1)
        logprobs, own = old_logprobs + moved.to(old_logprobs.dtype), targets.select(micro.rows, tokens.shape[1])
        loss = fire_loss(logprobs, old_logprobs, own, micro.fractions, 0.2)
        loss.backward()
        total += loss.detach()
    return total.item(), table.grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("reduction", ["token", "trajectory"])
def test_micro_batches_order_and_padding_have_no_effect(dtype, tolerance, reduction):
    batch = scored_batch(8, 12, seed=5, dtype=dtype)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
    wider = {name: torch.nn.functional.pad(value, (0, 7), value=99.0) for name, value in batch.signals.items()}
    padded = replace(
        batch,
        tokens=torch.nn.functional.pad(batch.tokens, (0, 7)),
        response_mask=torch.nn.functional.pad(batch.response_mask, (0, 7)),
        signals=wider,
    )
    loss, gradient = loss_and_gradient(batch, budget=1, reduction=reduction)
    assert gradient.abs().max() > 1e-3
    for other, budget in [(batch, 3 * 12), (batch, 10**6), (batch.select(order), 20), (padded, 30)]:
        other_loss, other_gradient = loss_and_gradient(other, budget, reduction)
        assert other_loss == pytest.approx(loss, rel=tolerance)
        torch.testing.assert_close(
            other_gradient, gradient, rtol=tolerance, atol=tolerance * gradient.abs().max().item()
        )


@pytest.mark.parametrize("reduction", ["token", "trajectory"])
def test_weights_importance_and_fractions_also_multiply_a_divergence(reduction):
    batch = scored_batch(dtype=torch.float64, seed=9)
    divergence = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = EntropyGatedKL(entropy_threshold=1.5, strength=0.7)
    method = Method(TeacherLikelihoodFilter(0.3), EntropyWeighter(), objective, importance_cap=2.0)
    targets = method.targets(batch)
    shares, leaf = loss_fractions(targets.mask, reduction), divergence.clone().requires_grad_()
    loss = fire_loss(batch.student_logprobs, batch.student_logprobs, targets, shares, 0.2, leaf)
    loss.backward()
    _, weight, plain = naive(batch, 0.3, 1.0, 1.0, "trajectory", reduction, 2.0, 0.2, batch.student_logprobs)
    kept = [sum(bool(m) for m in row) for row in targets.mask]
    added = 0.0
    for (i, t), w in weight.items():
        importance = min(math.exp((batch.student_logprobs - batch.sampling_logprobs)[i, t]), 2.0)
        factor = w * importance * 0.7 * bool(batch.teacher_entropy[i, t] > 1.5) * bool(targets.keep[i])
        factor /= sum(kept) if reduction == "token" else max(1, kept[i]) * sum(bool(number) for number in kept)
        assert leaf.grad[i, t].item() == pytest.approx(factor, rel=1e-6)
        added += factor * divergence[i, t].item()
    assert added > 0
    assert loss.item() == pytest.approx(plain + added, rel=1e-6)


def test_neutral_settings_are_plain_opd():
    batch = scored_batch(seed=7)
    fire = Method(TeacherLikelihoodFilter(0.0), EntropyWeighter(0.0, 0.0)).targets(batch)
    plain = Method().targets(batch)
    for name in ("keep", "mask", "weight", "advantage", "importance"):
        assert torch.equal(getattr(fire, name), getattr(plain, name))
    assert torch.equal(plain.advantage, torch.where(plain.mask, batch.teacher_logprobs - batch.student_logprobs, 0.0))


def test_scale_of_the_weights_does_not_matter():
    class Tenfold(EntropyWeighter):
        def __call__(self, batch):
            return 10 * super().__call__(batch)

    batch = scored_batch()
    for normalization in ("trajectory", "batch"):
        one = Method(token_weighter=EntropyWeighter(), normalization=normalization).targets(batch)
        ten = Method(token_weighter=Tenfold(), normalization=normalization).targets(batch)
        torch.testing.assert_close(one.weight, ten.weight)


@pytest.mark.parametrize("normalization", ["trajectory", "batch"])
def test_weights_of_any_size_are_normalized(normalization):
    mask = torch.ones(2, 200, dtype=torch.bool)
    weight = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) + 0.5
    expected = normalize(weight, mask, normalization)
    for exponent in (126, 60, -60, -120):
        scaled = torch.ldexp(weight, torch.tensor(exponent))
        assert scaled.isfinite().all()
        assert torch.equal(normalize(scaled, mask, normalization), expected), "a power of two changes no digit"
    largest = torch.full(mask.shape, torch.finfo(torch.float32).max)
    smallest = torch.full(mask.shape, torch.finfo(torch.float32).smallest_normal)
    for extreme in (largest, smallest, smallest / 2**20):
        torch.testing.assert_close(normalize(extreme, mask, normalization), torch.ones(mask.shape))
    assert not normalize(torch.zeros(mask.shape), mask, normalization).any()


def test_values_off_the_mask_have_no_effect():
    batch = scored_batch()
    planted = {n: torch.where(batch.response_mask, v, torch.nan) for n, v in batch.signals.items()}
    method = Method(TeacherLikelihoodFilter(0.3), EntropyWeighter())
    clean, dirty = method.targets(batch), method.targets(replace(batch, signals=planted))
    for name in ("keep", "mask", "weight", "advantage", "importance"):
        assert torch.equal(getattr(clean, name), getattr(dirty, name))


def test_importance_weights_are_truncated_and_the_same_for_every_method():
    batch = scored_batch()
    shifted = dict(batch.signals) | {"sampling_logprobs": batch.student_logprobs - 3}
    batch = replace(batch, signals=shifted)
    for method in (Method(), Method(TeacherLikelihoodFilter(), EntropyWeighter())):
        targets = method.targets(batch)
        assert targets.importance[targets.mask].unique().tolist() == [5.0]
    assert Method(importance_cap=None).targets(batch).importance.max() == 1


def test_beyond_the_clip_the_gradient_is_zero():
    batch = scored_batch(1, 6)
    targets = Method(importance_cap=None).targets(batch)
    shares = loss_fractions(targets.mask, "token")
    direction = targets.advantage.sign()
    for step, moves in ((0.1, True), (0.5, False)):
        logprobs = (batch.student_logprobs + step * direction).requires_grad_()
        fire_loss(logprobs, batch.student_logprobs, targets, shares, 0.2).backward()
        assert bool(logprobs.grad.abs().sum() > 0) is moves


def test_nothing_kept_gives_a_zero_loss_with_a_graph():
    batch = scored_batch()
    targets = Method(LengthFilter(min_tokens=99)).targets(batch)
    logprobs = batch.student_logprobs.clone().requires_grad_()
    loss = fire_loss(logprobs, batch.student_logprobs, targets, loss_fractions(targets.mask, "token"), 0.2)
    loss.backward()
    assert loss.item() == 0
    assert logprobs.grad.abs().sum() == 0
    assert loss_fractions(targets.mask, "trajectory").sum() == 0


def test_a_single_token_is_kept_with_weight_one():
    batch = scored_batch(1, 4)
    mask = torch.tensor([[False, True, False, False]])
    targets = Method(TeacherLikelihoodFilter(0.9), EntropyWeighter()).targets(replace(batch, response_mask=mask))
    assert targets.keep.tolist() == [True]
    assert targets.weight.tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_loss_fractions_sum_to_one():
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    assert loss_fractions(mask, "token").sum().item() == pytest.approx(1, rel=1e-12)
    by_row = loss_fractions(mask, "trajectory").sum(-1)
    assert by_row.tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_a_teacher_equal_to_the_student_gives_zero_advantages():
    batch = scored_batch()
    same = dict(batch.signals) | {"teacher_logprobs": batch.student_logprobs}
    assert Method(token_weighter=UniformWeighter()).targets(replace(batch, signals=same)).advantage.abs().max() == 0

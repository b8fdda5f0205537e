"""Token selection against references in Python loops."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import with_signals

from fireopd.method import Method
from fireopd.objectives import GeneralizedJSD
from fireopd.types.log_ratio import floor_of
from fireopd.weighters import (
    AgreementWeighter,
    EntropyWeighter,
    HardEntropyWeighter,
    PhasedEntropyWeighter,
    TeachabilityWeighter,
    UncertainOrDivergentWeighter,
    UncertainTokenWeighter,
    UniformWeighter,
    UnlikelyTokenWeighter,
)


def tokens(batch, values):
    """Return the values of all response tokens of the batch as a list."""
    return values[batch.response_mask].tolist()


def quantile(values, share):
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def largest(values, share):
    return [float(value >= quantile(values, 1 - share)) for value in values]


def scaled(values, low, high):
    return [min(1.0, max(0.0, (value - low) / (high - low))) for value in values]


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_selections_equal_naive_references(share):
    batch = full_batch(10, 20, seed=3, dtype=torch.float64)
    entropy, divergence, mass = (
        tokens(batch, values) for values in (batch.student_entropy, batch.reverse_kl, batch.student_topk_mass)
    )
    h, d = (scaled(values, min(values), max(values)) for values in (entropy, divergence))
    either = [a + b - a * b for a, b in zip(h, d, strict=True)]
    teachable = [scaled(v, quantile(v, 0.05), quantile(v, 0.95)) for v in (divergence, mass)]
    both = [a * b for a, b in zip(*teachable, strict=True)]
    fire = tokens(batch, EntropyWeighter(2.0, 0.5)(batch))
    later = replace(batch, policy_version=50)
    for found, score in (
        (UncertainOrDivergentWeighter(share)(batch), either),
        (TeachabilityWeighter(share)(batch), both),
        (HardEntropyWeighter(2.0, 0.5, share)(batch), fire),
        (PhasedEntropyWeighter(50, share)(later), entropy),
    ):
        assert tokens(batch, found) == largest(score, share)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.55, 1.0])
def test_the_largest_entropies_of_each_response(share):
    batch = full_batch(10, 20, seed=3, dtype=torch.float64)
    found = UncertainTokenWeighter(share)(batch)
    for row in range(10):
        values = batch.student_entropy[row][batch.response_mask[row]].tolist()
        number = max(1, int(share * len(values)))
        expected = [float(value >= sorted(values, reverse=True)[number - 1]) for value in values]
        assert found[row][batch.response_mask[row]].tolist() == expected
        assert sum(expected) == number
    together = tokens(batch, UncertainTokenWeighter(share, "batch")(batch))
    values = tokens(batch, batch.student_entropy)
    number = max(1, int(share * len(values)))
    assert together == [float(value >= sorted(values, reverse=True)[number - 1]) for value in values]
    assert UncertainTokenWeighter().by_trajectory
    assert not UncertainTokenWeighter(scope="batch").by_trajectory


@pytest.mark.parametrize("share", [0.01, 0.2, 0.55, 1.0])
def test_the_least_likely_tokens_are_counted_as_released(share):
    batch = full_batch(10, 20, seed=3, dtype=torch.float64)
    likelihoods = tokens(batch, batch.student_logprobs)
    number = max(1, int(share * len(likelihoods)))
    expected = [float(value <= sorted(likelihoods)[number - 1]) for value in likelihoods]
    assert tokens(batch, UnlikelyTokenWeighter(share)(batch)) == expected
    assert sum(expected) == number


def test_agreement_of_verifier_and_teacher_at_each_token():
    groups, rewards = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0, 1.0])
    batch = with_signals(replace(full_batch(6, 20), groups=groups), rewards=rewards)
    sides = [1, 0, -1, 0, 0, 0]  # above, at or below the mean of the group
    for margin in (0.0, 0.7):
        found = AgreementWeighter(margin)(batch)
        for row, side in enumerate(sides):
            ratio = (batch.teacher_logprobs - batch.student_logprobs)[row][batch.response_mask[row]].tolist()
            expected = [float(side * r > margin and side != 0) for r in ratio]
            assert found[row][batch.response_mask[row]].tolist() == expected


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_teachability_as_released(share):
    batch = full_batch(10, 20, seed=3, dtype=torch.float64)
    divergence, mass = tokens(batch, batch.topk_forward_kl), tokens(batch, batch.student_topk_mass)
    factors = [scaled(v, quantile(v, 0.05), quantile(v, 0.95)) for v in (divergence, mass)]
    score = [a * b for a, b in zip(*factors, strict=True)]
    least = sorted(score, reverse=True)[max(1, math.ceil(share * len(score))) - 1]
    rows = batch.response_mask.nonzero()[:, 0].tolist()
    expected = [float(value >= least) for value in score]
    for row in range(10):
        own = [place for place, other in enumerate(rows) if other == row]
        if not any(expected[place] for place in own):
            expected[max(own, key=lambda place: score[place])] = 1.0
    weighter = TeachabilityWeighter(share, form="released")
    assert tokens(batch, weighter(batch)) == expected
    assert weighter.requires == {"topk_forward_kl", "student_topk_mass"}


def test_a_constant_factor_is_1_in_the_paper_s_form_and_0_as_released():
    batch = with_signals(full_batch(), student_topk_mass=torch.full_like(full_batch().student_topk_mass, 0.5))
    best = batch.reverse_kl[batch.response_mask].max()
    chosen = TeachabilityWeighter(0.05)(batch)[batch.response_mask] > 0
    assert batch.reverse_kl[batch.response_mask][chosen].max() == best
    assert not chosen.all()
    assert TeachabilityWeighter(0.05, form="released")(batch)[batch.response_mask].all(), "all scores are 0, and tie"


def test_scores_of_three_tokens():
    """Entropy and divergence of (0, 1), (.5, .5), (1, 0): scores 1, .75, 1."""
    batch = full_batch(1, 5)
    mask = torch.tensor([[False, True, True, True, False]])
    batch = replace(batch, response_mask=mask)
    entropy, divergence = torch.tensor([[9.0, 0, 0.5, 1, 9]]), torch.tensor([[9.0, 1, 0.5, 0, 9]])
    batch = with_signals(batch, student_entropy=entropy, reverse_kl=divergence)
    assert tokens(batch, UncertainOrDivergentWeighter(0.5)(batch)) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("floor", ["scaled", "logit"])
def test_before_the_switch_the_floor_decides(floor):
    batch = full_batch(10, 20, seed=3)
    weighter = PhasedEntropyWeighter(5, mixing=0.4, floor=floor)
    ratio = tokens(batch, batch.teacher_logprobs - batch.student_logprobs)
    expected = [float(r >= floor_of(0.4, floor)) for r in ratio]
    assert 0 < sum(expected) < len(expected)
    for step in (0, 4):
        assert tokens(batch, weighter(replace(batch, policy_version=step))) == expected
    assert tokens(batch, weighter(replace(batch, policy_version=5))) != expected


@pytest.mark.parametrize(
    "weighter",
    [
        HardEntropyWeighter(share=1.0),
        UncertainOrDivergentWeighter(1.0),
        PhasedEntropyWeighter(0, 1.0),
        PhasedEntropyWeighter(9, mixing=1e-40),
        TeachabilityWeighter(1.0),
        TeachabilityWeighter(1.0, form="released"),
        UnlikelyTokenWeighter(1.0),
        UncertainTokenWeighter(1.0),
        UncertainTokenWeighter(1.0, "batch"),
    ],
    ids=str,
)
def test_selecting_all_tokens_equals_uniform_weights(weighter):
    batch = full_batch(seed=4)
    for normalization in ("batch", "trajectory"):
        settings = {"objective": GeneralizedJSD(1.0), "normalization": normalization}
        chosen, all_ = (Method(token_weighter=w, **settings).targets(batch) for w in (weighter, UniformWeighter()))
        for name, value in all_.tensors.items():
            assert torch.equal(chosen.tensors[name], value), name


def test_normalised_over_the_batch_the_loss_is_a_mean_over_the_selected_tokens():
    batch = full_batch(seed=5)
    targets = Method(token_weighter=UncertainOrDivergentWeighter(0.3), normalization="batch").targets(batch)
    number, chosen = int(batch.response_mask.sum()), targets.weight > 0
    torch.testing.assert_close(
        targets.weight[chosen] / number, torch.full_like(targets.weight[chosen], 1 / chosen.sum())
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HardEntropyWeighter(share=0), r"share must be in \(0, 1\], got 0"),
        (lambda: HardEntropyWeighter(alpha=-1), "alpha must be at least 0, got -1"),
        (lambda: UncertainOrDivergentWeighter(1.5), r"share must be in \(0, 1\], got 1.5"),
        (lambda: PhasedEntropyWeighter(share=0), r"share must be in \(0, 1\], got 0"),
        (lambda: PhasedEntropyWeighter(mixing=0), r"mixing must be in \(0, 1\), got 0"),
        (lambda: UnlikelyTokenWeighter(0), r"share must be in \(0, 1\], got 0"),
        (lambda: UncertainTokenWeighter(0), r"share must be in \(0, 1\], got 0"),
        (lambda: AgreementWeighter(-1), "margin must be at least 0, got -1"),
        (lambda: TeachabilityWeighter(0), r"share must be in \(0, 1\], got 0"),
        (lambda: TeachabilityWeighter(tail=0.5), r"tail must be in \[0, 0.5\), got 0.5"),
    ],
)
def test_settings_have_a_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_with_constant_mass_the_divergence_selects():
    batch = with_signals(full_batch(), student_topk_mass=torch.ones_like(full_batch().student_topk_mass))
    chosen = TeachabilityWeighter(share=0.25, tail=0.0)(batch)[batch.response_mask]
    divergence = batch.reverse_kl[batch.response_mask]
    assert 0.2 < chosen.mean() < 0.35
    assert divergence[chosen == 1].min() > divergence[chosen == 0].max()

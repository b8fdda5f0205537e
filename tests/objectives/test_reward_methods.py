"""Objectives and filters by reward, against references in Python loops."""

from dataclasses import replace
from statistics import mean, pstdev, stdev

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import expected_gradient, random_state, with_signals

from fireopd.filters import AgreementFilter, BalanceFilter, VerdictFilter
from fireopd.method import Method
from fireopd.objectives import (
    CreditedReverseKL,
    GroupRewardReverseKL,
    MarginReverseKL,
    ReverseKL,
    VerdictGatedReverseKL,
)


def graded(groups=(0, 0, 0, 0, 1, 1, 1, 2), rewards=(1, 0, 1, 0, 1, 1, 1, 0), seed=0):
    batch = full_batch(len(groups), 12, seed=seed, dtype=torch.float64)
    batch = replace(batch, groups=torch.tensor(groups))
    return with_signals(batch, rewards=torch.tensor(rewards, dtype=torch.float64))


def ratios(batch):
    """Return the log-ratios of the response tokens of each row as lists."""
    gaps = batch.teacher_logprobs - batch.student_logprobs
    return [gaps[row][batch.response_mask[row]].tolist() for row in range(len(batch.teachers))]


def at_tokens(batch, advantage):
    return [advantage[row][batch.response_mask[row]].tolist() for row in range(len(batch.teachers))]


def z(values, spread):
    deviation = spread(values) if len(values) > 1 else 0.0
    return [(v - mean(values)) / (deviation + 1e-6) for v in values]


def by_group(batch, values, spread=stdev):
    found = [0.0] * len(values)
    for group in set(batch.groups.tolist()):
        rows = [row for row, own in enumerate(batch.groups.tolist()) if own == group]
        for row, score in zip(rows, z([values[row] for row in rows], spread), strict=True):
            found[row] = score
    return found


def close(found, expected):
    for own, other in zip(found, expected, strict=True):
        assert own == pytest.approx(other, abs=1e-9)


def test_the_verdict_gates_the_sign_of_the_log_ratio():
    batch = graded()
    pairs = zip(ratios(batch), batch.rewards.tolist(), strict=True)
    expected = [[max(r, 0) if reward else min(r, 0) for r in row] for row, reward in pairs]
    close(at_tokens(batch, VerdictGatedReverseKL().advantage(batch)), expected)


def test_group_rewards_are_added_to_the_log_ratio():
    batch = graded()
    scores = by_group(batch, batch.rewards.tolist())
    expected = [[score + 0.1 * r for r in row] for score, row in zip(scores, ratios(batch), strict=True)]
    close(at_tokens(batch, GroupRewardReverseKL(0.1).advantage(batch)), expected)
    assert abs(scores[0]) > 0.5
    assert scores[7] == 0


@pytest.mark.parametrize("credit", ["standardized", "uniform"])
@pytest.mark.parametrize("limit", [1.5, 10.0])
def test_the_excess_reward_is_distributed_by_credit(credit, limit):
    batch = graded()
    rows = ratios(batch)
    pairs = zip(*(by_group(batch, v, pstdev) for v in (batch.rewards.tolist(), [mean(r) for r in rows])), strict=True)
    mixed = [group == 0 for group in batch.groups.tolist()]  # group 1 has equal rewards, group 2 a single response
    beyond = [(reward - teacher) * own for (reward, teacher), own in zip(pairs, mixed, strict=True)]
    expected = []
    for row, extra in zip(rows, beyond, strict=True):
        deviation = pstdev(row) or 1.0
        away = torch.tensor([(r - mean(row)) / deviation for r in row], dtype=torch.float64)
        share = (1 + (away / 2).tanh()).tolist() if credit == "standardized" else [1.0] * len(row)
        expected.append([max(-limit, min(limit, r + 0.5 * extra * c)) for r, c in zip(row, share, strict=True)])
    for found, wanted in zip(
        at_tokens(batch, CreditedReverseKL(0.5, credit, limit).advantage(batch)), expected, strict=True
    ):
        assert found == pytest.approx(wanted, abs=1e-5), "the reference adds 1e-6 to deviations"


def shifted(batch):
    gaps = [[a - r for a, r in zip(*rows, strict=True)] for rows in zip(advantages(batch), ratios(batch), strict=True)]
    assert all(max(row) - min(row) < 1e-9 for row in gaps), "all tokens of a row have the same shift"
    return [row[0] for row in gaps]


def advantages(batch, objective=MarginReverseKL()):  # noqa: B008 - frozen
    return at_tokens(batch, objective.advantage(batch))


def with_returns(returns, rewards, groups):
    """Return a batch in which every token of row i has the log-ratio returns[i]."""
    batch = graded(groups, rewards)
    values = torch.tensor(returns, dtype=torch.float64)[:, None] + batch.student_logprobs
    return with_signals(batch, teacher_logprobs=torch.where(batch.response_mask, values, 0.0))


@pytest.mark.parametrize(
    ("objective", "up", "down"),
    [
        (MarginReverseKL(0.4), 0.5, 0.0),
        (MarginReverseKL(0.4, "incorrect_down"), 0.0, -0.5),
        (MarginReverseKL(0.4, "both"), 0.25, -0.25),
        (MarginReverseKL(-0.1), 0.0, 0.0),
        (MarginReverseKL(-1e30), 0.0, 0.0),
    ],
    ids=str,
)
def test_the_shift_makes_the_margin(objective, up, down):
    """Means of -.30 and -.20 with a margin of .4: a shift of .5, or of .25 each way."""
    batch = with_returns([-0.2, -0.4, -0.1, -0.3], [1, 1, 0, 0], [5, 5, 5, 5])
    found = [row[0] for row in advantages(batch, objective)]
    assert found == pytest.approx([-0.2 + up, -0.4 + up, -0.1 + down, -0.3 + down])


def test_groups_of_one_kind_are_not_shifted_unless_the_batch_is_compared():
    batch = with_returns([-0.2, -0.4, -0.1, -0.3], [1, 1, 0, 0], [0, 0, 1, 1])
    assert [row[0] for row in advantages(batch)] == pytest.approx([-0.2, -0.4, -0.1, -0.3])
    together = advantages(batch, MarginReverseKL(scope="batch"))
    assert [row[0] for row in together] == pytest.approx([0.3, 0.1, -0.1, -0.3])
    extreme = advantages(batch, MarginReverseKL(scope="batch", gap="extreme"))
    assert [row[0] for row in extreme] == pytest.approx([-0.2 + 0.7, -0.4 + 0.7, -0.1, -0.3])


def test_neutral_settings_are_plain_opd():
    batch = graded()
    plain = ReverseKL().advantage(batch)
    for objective in (MarginReverseKL(-1e30), CreditedReverseKL(0.0)):
        found = objective.advantage(batch)
        assert torch.equal(found[batch.response_mask], plain[batch.response_mask])


def test_verdict_filters_are_complementary():
    batch = graded()
    correct, incorrect = VerdictFilter()(batch), VerdictFilter("incorrect")(batch)
    assert correct.tolist() == [bool(reward) for reward in batch.rewards]
    assert torch.equal(incorrect, ~correct)


def test_agreement_of_verifier_and_teacher():
    batch = graded()
    sums = [sum(row) for row in ratios(batch)]
    for margin in (0.0, 2.0):
        better = [score > 0 for score in by_group(batch, batch.rewards.tolist())]
        expected = [s > margin if b else s < -margin for s, b in zip(sums, better, strict=True)]
        assert AgreementFilter(margin)(batch).tolist() == expected
    with pytest.raises(ValueError, match="margin must be at least 0, got -1"):
        AgreementFilter(-1)


def test_balance_keeps_equal_numbers_of_each_kind():
    batch = graded([0] * 5 + [1] * 3 + [2] * 4, [1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1])
    keep = BalanceFilter()(batch)
    for group, counts in ((0, (2, 2)), (1, (3, 0)), (2, (1, 1))):
        own = batch.groups == group
        assert (int((keep & own & (batch.rewards > 0)).sum()), int((keep & own & (batch.rewards == 0)).sum())) == counts
    together = BalanceFilter("batch")(batch)
    assert int((together & (batch.rewards > 0)).sum()) == int((together & (batch.rewards == 0)).sum()) == 5
    drawn = {tuple(BalanceFilter("batch", seed=seed)(batch).tolist()) for seed in range(20)}
    assert len(drawn) > 5
    steps = {tuple(BalanceFilter("batch")(replace(batch, policy_version=step)).tolist()) for step in range(20)}
    assert len(steps) > 5


def test_a_batch_of_one_kind_is_kept():
    batch = graded(rewards=[1] * 8)
    for filter_ in (BalanceFilter(), BalanceFilter("batch"), VerdictFilter()):
        assert filter_(batch).all()
    assert not Method(VerdictFilter("incorrect")).targets(batch).keep.any()


@pytest.mark.parametrize("make", [GroupRewardReverseKL, CreditedReverseKL])
def test_strengths_have_a_range(make):
    with pytest.raises(ValueError, match="strength must be at least 0, got -1"):
        make(-1)


def test_without_excess_the_expected_gradient_is_that_of_the_reverse_kl():
    logits, teacher, _ = random_state(seed=3)
    student = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((student.exp() * (student - teacher)).sum(), logits, retain_graph=True)
    found = expected_gradient(CreditedReverseKL(1.0), logits, teacher, lambda token: {"rewards": torch.ones(1)})
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)


def test_the_limit_has_a_range():
    with pytest.raises(ValueError, match="limit must be greater than 0, got 0; null for none"):
        CreditedReverseKL(limit=0)


def test_equal_rewards_or_equal_scores_leave_the_log_ratio():
    """As released: without both rankings there is no excess."""
    for batch in (graded(rewards=[1] * 8), with_returns([-0.5] * 8, [1, 0] * 4, [0] * 8)):
        assert torch.equal(
            CreditedReverseKL(5.0, limit=None).advantage(batch)[batch.response_mask],
            ReverseKL().advantage(batch)[batch.response_mask],
        )


@pytest.mark.parametrize("objective", [MarginReverseKL(), CreditedReverseKL()])
def test_a_token_of_probability_0_does_not_affect_other_trajectories(objective):
    batch = full_batch()
    impossible = batch.teacher_logprobs.clone()
    row = 2
    first = int(batch.response_mask[row].int().argmax())
    impossible[row, first] = -torch.inf
    batch = replace(
        batch, groups=torch.zeros_like(batch.groups), signals=batch.signals | {"teacher_logprobs": impossible}
    )
    advantage = objective.advantage(batch)
    others = [other for other in range(len(batch.teachers)) if other != row]
    assert advantage[others][batch.response_mask[others]].isfinite().all()

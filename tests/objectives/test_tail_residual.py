"""ResOPD: the expected gradient is that of the whole vocabulary, with less variance than the sampled token."""

import pytest
import torch
from helpers.small_vocabulary import expected_gradient, random_state

from fireopd.models.distributions import HeadComparison
from fireopd.objectives import GeneralizedJSD, TailResidualKL, TopKDivergence


def gradients(objective, logits, teacher):
    """Return the gradient on the logits for each sampled token, float64 [V, V]."""
    size = len(logits)
    rows = logits.detach().expand(size, -1).clone().requires_grad_()
    loss = objective.estimate(rows.log_softmax(-1), teacher.expand(size, -1), torch.arange(size))
    return torch.autograd.grad(loss.sum(), rows)[0]


@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_the_expected_gradient_is_that_of_the_reverse_kl(top_k):
    logits, teacher, _ = random_state(seed=2)
    exact = expected_gradient(GeneralizedJSD(1.0), logits, teacher)
    torch.testing.assert_close(expected_gradient(TailResidualKL(top_k), logits, teacher), exact, rtol=1e-9, atol=1e-12)
    coarse = TopKDivergence(top_k, mass="tail")
    assert top_k == 6 or (expected_gradient(coarse, logits, teacher) - exact).abs().max() > 1e-3
    value = TailResidualKL(top_k).divergence(logits.log_softmax(-1)[None], teacher[None])
    torch.testing.assert_close(value, coarse.divergence(logits.log_softmax(-1)[None], teacher[None]))


def test_the_gradient_of_each_token_is_the_published_one():
    logits, teacher, _ = random_state(seed=3)
    p, q = logits.detach().softmax(-1), teacher.exp()
    support = set(q.topk(3).indices.tolist())
    scores = torch.eye(7, dtype=torch.float64) - p  # row v: the gradient of log p_v
    tail = [v for v in range(7) if v not in support]
    masses = sum(p[v] for v in tail), sum(q[v] for v in tail)
    mu = (masses[0] / masses[1]).log() * sum(p[v] * scores[v] for v in tail) / masses[0]
    coarse = sum(p[v] * (p[v] / q[v]).log() * scores[v] for v in support) + masses[0] * mu
    for token, found in enumerate(gradients(TailResidualKL(3), logits, teacher)):
        residual = (p[token] / q[token]).log() * scores[token] - mu if token in tail else torch.zeros(7)
        torch.testing.assert_close(found, coarse + residual, rtol=1e-9, atol=1e-12)


def test_the_variance_is_below_that_of_the_sampled_token():
    logits, teacher, _ = random_state(seed=4)
    p, scores = logits.detach().softmax(-1), torch.eye(7, dtype=torch.float64) - logits.detach().softmax(-1)
    sampled = (p.log() - teacher)[:, None] * scores

    def variance(values):
        return (p[:, None] * (values - (p[:, None] * values).sum(0)) ** 2).sum()

    assert variance(gradients(TailResidualKL(3), logits, teacher)) < variance(sampled)


def test_a_sampled_token_that_the_teacher_does_not_have():
    """Padding of the student's vocabulary: the last token of the common vocabulary stands for it."""

    class Head:
        size = 5

        def first(self, size):
            return self

        def log_distribution(self, hidden_states, temperature):
            return torch.zeros(len(hidden_states), 5).log_softmax(-1)

    comparison = HeadComparison(Head(), torch.zeros(2, 3), lambda *inputs: {"tokens": inputs[2].float()})
    found = comparison.compare(torch.zeros(2, 7).log_softmax(-1), torch.tensor([1, 6]), 1.0)
    assert found["tokens"].tolist() == [1.0, 4.0]

"""Statistics over several responses to one problem: pass@k and maj@n."""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb
from statistics import fmean

__all__ = ["majority", "pass_at_k"]


def pass_at_k(rewards: Sequence[float], k: int) -> float:
    """Return the unbiased estimate of pass@k, the probability that at least one of k responses is correct, from n >= k.

    1 - C(n - c, k) / C(n, k) with c correct responses (Chen et al., arXiv 2107.03374, Eq. 1). A reward of 1 is correct.

    Raises:
        ValueError: if there are fewer than k rewards.
    """
    n, correct = len(rewards), sum(reward == 1 for reward in rewards)
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} responses to each prompt, got {n}")
    return 1 - comb(n - correct, k) / comb(n, k)


def majority(rewards: Sequence[float], answers: Sequence[Hashable | None]) -> float:
    """Return maj@n, the mean reward of the most frequent final answer; the mean over tied answers.

    Args:
        rewards: rewards of n responses.
        answers: final answers of the responses; None is not counted. Without any answer, the result is 0.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    winners = [
        fmean([reward for reward, answer in zip(rewards, answers, strict=True) if answer == winner])
        for winner, count in votes.items()
        if count == most
    ]
    return fmean(winners) if winners else 0.0

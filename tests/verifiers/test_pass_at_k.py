"""pass@k and maj@n of one problem against enumeration."""

from itertools import combinations

import pytest

from fireopd.verifiers.pass_at_k import majority, pass_at_k


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_response(n):
    for right in range(n + 1):
        rewards = [1.0] * right + [0.5] * (n - right)
        for k in range(1, n + 1):
            subsets = list(combinations(rewards, k))
            expected = sum(1.0 in subset for subset in subsets) / len(subsets)
            assert pass_at_k(rewards, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_does_not_lose_its_digits_with_many_responses():
    # 1 - (900/1000)(899/999)...(801/901), the chance of 100 draws without any of the 100 right ones.
    missed = 1.0
    for i in range(100):
        missed *= (900 - i) / (1000 - i)
    assert pass_at_k([1.0] * 100 + [0.0] * 900, 100) == pytest.approx(1 - missed, rel=1e-12)


def test_pass_at_k_needs_k_responses():
    with pytest.raises(ValueError, match="pass@3 needs at least 3 responses to each prompt, got 2"):
        pass_at_k([1.0, 0.0], 3)


def test_majority_is_what_a_vote_with_ties_broken_by_chance_comes_to():
    assert majority([0, 0, 1], ["4", "4", "7"]) == 0
    assert majority([0, 1], ["4", "7"]) == 0.5
    assert majority([1, 0, 0], ["4", None, None]) == 1, "no answer is no vote"
    assert majority([0, 0], [None, None]) == 0
    assert majority([1.0, 0.5, 0.0], ["4", "4", "7"]) == 0.75, "grades of one answer may differ"

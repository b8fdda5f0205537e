"""Token sampling: frequencies match the distribution, and rounding never selects an impossible token."""

import pytest
import torch

from fireopd.engines.hf.sampling import BLOCK_SIZE, inverse_cdf, sample, truncate
from fireopd.types import Sampling


def test_token_frequencies_match_the_probabilities():
    logits = torch.tensor([1.0, -torch.inf, 0.0, 2.0, -1.0])
    uniforms = (torch.arange(20_000) + 0.5) / 20_000
    token_ids, logprobs = sample(logits.expand(20_000, -1), Sampling(), uniforms)
    frequencies = torch.bincount(token_ids, minlength=5) / 20_000
    torch.testing.assert_close(frequencies, logits.softmax(-1), atol=1e-3, rtol=0)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[token_ids])


@pytest.mark.parametrize("vocabulary", [1, 2, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 7])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), Sampling(1.0, 0.9, 50)])
def test_sampling_inverts_the_cumulative_distribution(vocabulary, sampling):
    torch.manual_seed(vocabulary)
    logits = torch.randn(400, vocabulary) * 4
    logits[:, 1::3] = -torch.inf
    uniforms = torch.rand(400)
    token_ids, logprobs = sample(logits, sampling, uniforms)
    exact = truncate(logits / sampling.temperature, sampling).double().softmax(-1)
    expected = exact.gather(-1, token_ids[:, None])[:, 0].log()
    rounding = 4e-6  # float32 logits of up to 20, divided by the temperature
    torch.testing.assert_close(logprobs.double(), expected, atol=rounding, rtol=1e-6)
    for row in range(400):
        before = exact[row, : token_ids[row]].sum().item()
        after = before + exact[row, token_ids[row]].item()
        assert before - rounding <= uniforms[row].item() <= after + rounding
        assert after > before


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return ((counts - expected) ** 2 / expected).sum().item()


def test_a_large_vocabulary_passes_a_chi_square_test():
    """1,000 tokens in four blocks, 80,000 samples; the threshold is the 0.999 quantile."""
    torch.manual_seed(0)
    logits = torch.randn(1000)
    counts = torch.zeros(1000, dtype=torch.float64)
    for _ in range(8):
        token_ids, _ = sample(logits.expand(10_000, -1), Sampling(1.5), torch.rand(10_000))
        counts += torch.bincount(token_ids, minlength=1000)
    exact = (logits.double() / 1.5).softmax(-1)
    assert chi_square(counts, exact) < 1142.85, "chi-square with 999 degrees of freedom, level 0.001"
    wrong = (logits.double() / 1.7).softmax(-1)
    assert chi_square(counts, wrong) > 1142.85, "the test detects a temperature of 1.7"


@pytest.mark.parametrize(("top_p", "top_k"), [(0.7, 0), (1.0, 3), (0.5, 4), (1e-6, 0), (1.0, 99), (0.9, 1)])
def test_truncation_keeps_and_renormalizes_the_most_likely_tokens(top_p, top_k):
    torch.manual_seed(0)
    logits = torch.randn(50, 11) * 2
    for row, cut in zip(logits, truncate(logits, Sampling(1.0, top_p, top_k)), strict=True):
        ranked = sorted(range(11), key=lambda token: -row[token])[: top_k or None]
        probabilities = row[ranked].softmax(-1).tolist()
        kept = [token for i, token in enumerate(ranked) if sum(probabilities[:i]) < top_p]
        assert sorted(kept) == cut.isfinite().nonzero()[:, 0].tolist()
    uniforms = torch.rand(50)
    token_ids, logprobs = sample(logits, Sampling(1.3, top_p, top_k), uniforms)
    distribution = truncate(logits / 1.3, Sampling(1.0, top_p, top_k)).softmax(-1)
    torch.testing.assert_close(logprobs.exp(), distribution.gather(-1, token_ids[:, None])[:, 0])
    assert (logprobs > -torch.inf).all()


@pytest.mark.parametrize(
    "possible", [(1, 2), (0,), (3 * BLOCK_SIZE,), (2, BLOCK_SIZE + 3), (BLOCK_SIZE - 1, BLOCK_SIZE)]
)
def test_extremes_of_the_uniform_never_give_an_impossible_token(possible):
    logits = torch.full((1, 3 * BLOCK_SIZE + 1), -torch.inf)
    logits[0, list(possible)] = torch.linspace(0.3, -17.0, len(possible))
    for uniform in (0.0, 1e-30, 0.5, 1 - 2**-24):
        token_ids, logprobs = sample(logits, Sampling(), torch.tensor([uniform]))
        assert logprobs.isfinite().all()
        assert token_ids.item() in possible
    first, _ = sample(logits, Sampling(), torch.tensor([0.0]))
    assert first.item() == possible[0]


def test_values_rounded_above_the_total_select_the_last_possible_token():
    cumulative = torch.tensor([[0.25, 0.25, 1.0, 1.0], [0.0, 0.5, 0.5, 0.5]], dtype=torch.float64)
    for values, expected in (
        ([0.0, 0.0], [0, 1]),
        ([0.25, 0.4999], [2, 1]),
        ([1.0, 0.5], [2, 1]),
        ([1.1, 9.0], [2, 1]),
    ):
        assert inverse_cdf(cumulative, torch.tensor(values, dtype=torch.float64)).tolist() == expected


def test_logits_that_are_not_finite_do_not_affect_other_rows():
    logits = torch.zeros(2, 5)
    logits[0] = torch.nan
    token_ids, logprobs = sample(logits, Sampling(), torch.tensor([0.5, 0.5]))
    assert token_ids.tolist() == [4, 2]
    assert logprobs.isnan().tolist() == [True, False]


def test_greedy_decoding_selects_the_first_of_equally_likely_tokens():
    token_ids, logprobs = sample(
        torch.tensor([[0.0, 2.0, 2.0], [-torch.inf, -5.0, -6.0]]), Sampling(0.0), torch.rand(2)
    )
    assert token_ids.tolist() == [1, 1]
    assert logprobs.tolist() == [0, 0]

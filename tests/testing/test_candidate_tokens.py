"""Truncated sampling in the conformance check of rollout engines."""

import re
from dataclasses import replace

import pytest
import torch
from helpers.wrong_engine import WrongEngine

from fireopd.engines import HFEngine
from fireopd.engines.hf.sampling import truncate
from fireopd.models.loading import load_causal_lm
from fireopd.testing.candidate_tokens import Candidates
from fireopd.testing.engine_case import EngineCase, distance
from fireopd.testing.engine_checks import LIMIT
from fireopd.testing.engine_checks import returns_logprobs_of_the_sampled_distribution as sampled
from fireopd.testing.plugin_checks import example_prompts, violations_of

STUDENT = "tiny/student"
TRUNCATED = {"top_p": {"top_p": 0.8}, "top_k": {"top_k": 3}, "both": {"top_p": 0.9, "top_k": 8}}


def truncated_case(settings, **inner):
    """Return an engine whose inner one has other settings, and its case."""
    sampler = HFEngine(max_response_length=6, temperature=1.25, **inner)
    sampler.setup(STUDENT, torch.device("cpu"))
    engine = WrongEngine(6, 1.25, **settings, inner=sampler)
    return EngineCase(engine, STUDENT, load_causal_lm(STUDENT, "student", "float32").eval(), example_prompts(STUDENT))


@pytest.mark.parametrize("settings", TRUNCATED.values(), ids=TRUNCATED)
def test_truncated_sampling_passes_and_ignored_truncation_is_found(settings):
    assert not violations_of("Wrong", truncated_case(settings, **settings), [sampled])
    [found] = violations_of("Wrong", truncated_case(settings), [sampled])
    assert "returns log-probabilities that are inf nats from those of the student" in found


def test_log_probabilities_of_all_tokens_are_found_with_truncated_sampling():
    case = truncated_case({"top_k": 3}, top_k=3)

    def whole(engine, responses):
        """Return the log-probabilities without the truncation."""
        rows = zip(case.rows[0], responses, strict=True)
        values = [case.distributions(p.tokens, r.tokens, 1.25)[range(len(r.tokens)), r.tokens] for p, r in rows]
        return [replace(r, logprobs=tuple(v.tolist())) for r, v in zip(responses, values, strict=True)]

    case.engine.responses = whole
    [found] = violations_of("Wrong", case, [sampled])
    assert re.search(r"that are \d\.\d+ nats from those of the student. They are those of the sampled", found), found


@pytest.mark.parametrize("gap", [1e-3, 0.05])
def test_a_candidate_at_the_limit_may_be_dropped_or_kept(gap):
    """The third token is as likely as the second, but for rounding."""
    engine = HFEngine(top_k=2, max_probe_gap=gap)
    distribution = torch.tensor([[0.5, 0.2, 0.2 - 1e-7, 0.1]], dtype=torch.float64).log()
    candidates = Candidates(distribution, engine)
    for token, probability in ((0, 0.5 / 0.7), (0, 0.5 / 0.9), (1, 0.2 / 0.7), (2, 0.2 / 0.7), (2, 0.2 / 0.9)):
        given = torch.tensor([probability], dtype=torch.float64).log()
        assert candidates.gaps(torch.tensor([token]), given) < 1e-6
        assert candidates.gaps(torch.tensor([token]), given.abs() + 1) > 1
    assert candidates.gaps(torch.tensor([3]), torch.tensor([-2.0])) == torch.inf
    assert candidates.surprise(torch.tensor([2])) == (0.0, 0.0)


@pytest.mark.parametrize("sampling", [{"top_k": 50}, {"top_p": 0.5}, {"top_k": 20, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_right_sampling_in_half_precision_passes(sampling, spread):
    """Flat distributions over many tokens, whose logits an engine computes with an error."""
    generator = torch.Generator().manual_seed(3)
    exact = spread * torch.randn(320, 16_000, generator=generator, dtype=torch.float64)
    rounded = exact + 0.02 * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
    engine = HFEngine(**sampling, max_probe_gap=0.1)
    sampled_from = truncate(rounded, engine.sampling).log_softmax(-1)
    tokens = torch.multinomial(sampled_from.exp(), 1, generator=generator)[:, 0]
    candidates = Candidates(exact.log_softmax(-1), engine)
    assert distance(candidates.gaps(tokens, sampled_from.gather(-1, tokens[:, None])[:, 0])) < 0.1
    above, variance = candidates.surprise(tokens)
    assert abs(above) <= LIMIT * max(variance, 1e-12) ** 0.5


def test_ignored_top_p_is_found_in_half_precision():
    """Without top_p, tokens that are no candidates occur."""
    generator = torch.Generator().manual_seed(3)
    distribution = torch.randn(200, 1000, generator=generator, dtype=torch.float64).log_softmax(-1)
    tokens = torch.multinomial(distribution.exp(), 1, generator=generator)[:, 0]
    whole = distribution.gather(-1, tokens[:, None])[:, 0]
    for top_p in (0.7, 0.9):
        own = Candidates(distribution, HFEngine(top_p=top_p, max_probe_gap=0.1))
        assert distance(own.gaps(tokens, whole)) == torch.inf

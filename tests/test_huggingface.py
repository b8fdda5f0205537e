"""The embedded engine: what a row gets depends on its prompt and seed alone, and comes from the right distribution."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from fireopd.engines import HFEngine
from fireopd.rollouts import collate, roll_out, row_seed
from fireopd.scoring import CausalScorer, score_rollouts
from fireopd.types import Prompt

CPU = torch.device("cpu")


def prompt(tokens, name=None):
    return Prompt(tuple(tokens), "math", "math", None, name or str(tokens))


@pytest.fixture(scope="module")
def engine():
    engine = HFEngine(max_response_length=48)
    engine.setup("tiny/student", CPU)
    return engine


@pytest.fixture(scope="module")
def prompts(tiny_prompts):
    return tiny_prompts[:12]


def test_a_row_does_not_depend_on_what_else_is_in_the_batch(engine, prompts):
    seeds = list(range(100, 112))
    together = engine.generate(prompts, seeds)
    alone = [engine.generate([p], [s])[0] for p, s in zip(prompts, seeds, strict=True)]
    backwards = engine.generate(prompts[::-1], seeds[::-1])[::-1]
    small = HFEngine(max_response_length=48, batch_size=5)
    small.setup("tiny/student", CPU)
    for others in (alone, backwards, small.generate(prompts, seeds)):
        assert [r.tokens for r in others] == [r.tokens for r in together]
    assert len({len(r.tokens) for r in together}) > 1, "rows of different lengths leave the batch at different times"
    assert [r.tokens for r in engine.generate(prompts, seeds[::-1])] != [r.tokens for r in together]


def test_sampling_logprobs_are_those_of_the_trainer(engine, prompts):
    hot = HFEngine(max_response_length=24, temperature=1.7)
    hot.setup("tiny/student", CPU)
    for sampler in (engine, hot):
        rollouts = collate(prompts, sampler.generate(prompts, range(12)), range(12), sampler.sampling, 0)
        scores = score_rollouts(CausalScorer(sampler.model), rollouts, entropy=False, token_budget=4096)
        torch.testing.assert_close(scores.logprobs, rollouts.sampling_logprobs, atol=1e-4, rtol=0)


def test_responses_end_with_the_stop_token_or_are_marked_as_cut(engine, prompts):
    short = HFEngine(max_response_length=5)
    short.setup("tiny/student", CPU)
    for sampler in (short, engine):
        responses = sampler.generate(prompts, range(12))
        for response in responses:
            stops = [token in sampler.stops for token in response.tokens]
            assert response.finished == stops[-1]
            assert response.finished or len(response.tokens) == sampler.max_response_length
            assert not any(stops[:-1])
            assert len(response.logprobs) == len(response.tokens)
        assert any(response.finished for response in responses) or sampler is short
        assert not all(response.finished for response in responses) or sampler is engine


def test_rolled_out_frequencies_follow_the_model():
    """Two-step sequences of a random model: counts against exact probabilities, within five standard errors."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, eos_token_id=3,
    )  # fmt: skip
    engine = HFEngine(max_response_length=2, batch_size=2000)
    engine.model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.mul_(20)
    engine.stops = frozenset({3})
    count = 4000
    counts = {}
    for response in engine.generate([prompt([0, 1])] * count, range(count)):
        counts[response.tokens] = counts.get(response.tokens, 0) + 1
    with torch.no_grad():
        first = engine.model(torch.tensor([[0, 1]])).logits[0, -1].softmax(-1)
        after = engine.model(torch.tensor([[0, 1, t] for t in range(4)])).logits[:, -1].softmax(-1)
    exact = {(3,): first[3].item()} | {(a, b): (first[a] * after[a, b]).item() for a in range(3) for b in range(4)}
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5)
    for response, probability in exact.items():
        error = (probability * (1 - probability) / count) ** 0.5
        assert abs(counts.get(response, 0) / count - probability) < 5 * error + 1e-3


def test_loading_weights_changes_what_is_sampled(prompts):
    engine, teacher = HFEngine(max_response_length=24), HFEngine(max_response_length=24)
    engine.setup("tiny/student", CPU)
    teacher.setup("tiny/math", CPU)
    before = engine.generate(prompts, range(12))
    engine.load_weights(teacher.model.state_dict().items(), policy_version=3)
    assert engine.policy_version == 3
    after = engine.generate(prompts, range(12))
    assert [r.tokens for r in after] == [r.tokens for r in teacher.generate(prompts, range(12))]
    assert [r.tokens for r in after] != [r.tokens for r in before]


def test_a_tensor_of_an_unknown_name_is_not_swallowed(engine):
    with pytest.raises(KeyError, match="nonsense"):
        engine.load_weights([("nonsense", torch.zeros(1))], 1)


def test_responses_to_one_prompt_share_a_group_and_differ(engine, prompts):
    batch, rows, _ = roll_out(engine, prompts[:3], responses=4, seed=1, step=0, first_group=10)
    assert batch.groups.tolist() == [10] * 4 + [11] * 4 + [12] * 4
    assert [row.id for row in rows[:4]] == [prompts[0].id] * 4
    assert len({tuple(row.tolist()) for row in batch.tokens}) > 6


def test_row_seeds_tell_apart_seed_step_prompt_and_index():
    seeds = {row_seed(*key) for key in [(0, 0, "a", 0), (1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature must be greater than 0, got -1.0"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"max_response_length": 0}, "max_response_length must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"top_p": 0.0}, "top_p must be greater than 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "top_p must be greater than 0 and at most 1, got 1.1"),
        ({"top_k": -1}, "top_k must be at least 0, got -1"),
        ({"max_probe_gap": 0.0}, "max_probe_gap must be greater than 0"),
    ],
)
def test_settings_have_a_range(settings, message):
    with pytest.raises(ValueError, match=message):
        HFEngine(**settings)

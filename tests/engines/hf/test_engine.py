"""HFEngine: responses depend only on prompt and seed, and follow the sampling distribution."""

import pytest
import torch
from transformers import MambaConfig

from fireopd.engines import HFEngine
from fireopd.engines.hf.decoder import Decoder
from fireopd.engines.rollout import collate, roll_out, row_seed
from fireopd.errors import UserError
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.types import Prompt, Sampling

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


def test_rows_do_not_depend_on_the_rest_of_the_batch(engine, prompts):
    seeds = list(range(100, 112))
    together = engine.generate(prompts, seeds)
    alone = [engine.generate([p], [s])[0] for p, s in zip(prompts, seeds, strict=True)]
    backwards = engine.generate(prompts[::-1], seeds[::-1])[::-1]
    small = HFEngine(max_response_length=48, batch_size=5)
    small.setup("tiny/student", CPU)
    for others in (alone, backwards, small.generate(prompts, seeds)):
        assert [r.tokens for r in others] == [r.tokens for r in together]
    assert len({len(r.tokens) for r in together}) > 1, "rows of different lengths finish at different times"
    assert [r.tokens for r in engine.generate(prompts, seeds[::-1])] != [r.tokens for r in together]


def test_sampling_logprobs_equal_scored_logprobs(engine, prompts):
    hot = HFEngine(max_response_length=24, temperature=1.7)
    hot.setup("tiny/student", CPU)
    for sampler in (engine, hot):
        rollouts = collate(prompts, sampler.generate(prompts, range(12)), range(12), sampler.sampling, 0)
        scores = score_rollouts(CausalScorer(sampler.model), rollouts, entropy=False, token_budget=4096)
        torch.testing.assert_close(scores.logprobs, rollouts.sampling_logprobs, atol=1e-4, rtol=0)


def test_responses_end_with_a_stop_token_or_are_marked_as_cut(engine, prompts):
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


def test_each_response_is_announced_once_and_before_the_last_one_is_complete(engine, prompts, monkeypatch):
    announced, steps, decode_step = [], [], Decoder._decode_step
    monkeypatch.setattr(engine, "announce", lambda row, response: announced.append((row, response, len(steps))))
    monkeypatch.setattr(Decoder, "_decode_step", lambda self: (steps.append(0), decode_step(self))[1])
    responses = engine.generate(prompts, range(len(prompts)))
    assert sorted(row for row, _, _ in announced) == list(range(len(prompts)))
    assert all(responses[row] == response for row, response, _ in announced)
    assert announced[0][2] < announced[-1][2] == len(steps)


def test_no_prompts_give_no_responses(engine):
    assert engine.generate([], []) == []


def test_a_model_that_caches_more_than_keys_and_values_is_rejected(tmp_path):
    MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1).save_pretrained(tmp_path)
    message = "data.engine: 'HFEngine': .* caches more than keys and values. Use VLLMEngine"
    with pytest.raises(UserError, match=message):
        HFEngine().check("data.engine", str(tmp_path))
    with pytest.raises(UserError, match="caches more than keys and values"):
        HFEngine().setup(str(tmp_path), CPU)


@pytest.mark.parametrize("model", ["tiny/student", "tiny/code"])
def test_temperature_0_equals_greedy_search_of_transformers(prompts, model):
    engine = HFEngine(max_response_length=40, temperature=0, top_p=0.5, top_k=3)
    engine.setup(model, CPU)
    responses = engine.generate(prompts, range(12))
    stops = sorted(engine.stops)
    for prompt, response in zip(prompts, responses, strict=True):
        given = torch.tensor([prompt.tokens])
        expected = engine.model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=40, eos_token_id=stops
        )
        assert response.tokens == tuple(expected[0, len(prompt.tokens) :].tolist())
        assert set(response.logprobs) == {0.0}, "a point mass"
    assert responses == engine.generate(prompts, range(50, 62)), "seeds have no effect"
    assert engine.sampling.greedy
    assert not Sampling(0.01).greedy


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


def test_an_unknown_tensor_name_is_an_error(engine):
    with pytest.raises(KeyError, match="nonsense"):
        engine.load_weights([("nonsense", torch.zeros(1))], 1)


def test_responses_to_one_prompt_share_a_group_and_differ(engine, prompts):
    batch, rows, _ = roll_out(engine, prompts[:3], responses=4, seed=1, step=0, vocabulary=48, first_group=10)
    assert batch.groups.tolist() == [10] * 4 + [11] * 4 + [12] * 4
    assert [row.id for row in rows[:4]] == [prompts[0].id] * 4
    assert len({tuple(row.tolist()) for row in batch.tokens}) > 6


def test_row_seeds_depend_on_seed_step_prompt_and_index():
    seeds = {row_seed(*key) for key in [(0, 0, "a", 0), (1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0, got -1.0"),
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

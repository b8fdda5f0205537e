"""Command that starts a vLLM server."""

import json
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from fireopd.cli.commands.serve import server_process
from fireopd.engines.vllm import worker
from fireopd.engines.vllm.request_guard import GUARD, TOKEN_VARIABLE
from fireopd.engines.vllm.teacher_card import CARD_VARIABLE, TeacherCard
from fireopd.engines.vllm.worker import WORKER_EXTENSION
from fireopd.errors import UserError
from fireopd.models.loading import resolve


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    if find_spec("vllm") is None:
        monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.32.0"))


def test_settings_become_options_of_vllm_and_others_are_passed_on():
    arguments = ["tiny/student", "--port", "8005", "--kv_cache_gib", "0.5", "--eager", "--tensor-parallel-size", "2"]
    command, environment = server_process(arguments)
    assert command[:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model", resolve("tiny/student", "x")]
    options = " ".join(command)
    for part in ("--host 127.0.0.1", "--port 8005", f"--kv-cache-memory-bytes {2**29}", "--tensor-parallel-size 2"):
        assert part in options
    for part in ("--enforce-eager", "--enable-scale-out", "--logprobs-mode processed_logprobs", "--dtype float32"):
        assert part in options
    assert f"--middleware {GUARD}" in options
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"


def test_the_worker_extension_is_where_its_name_says():
    module, _, name = WORKER_EXTENSION.rpartition(".")
    assert module == worker.__name__
    assert callable(vars(worker)[name].load_snapshot)


def test_a_model_that_is_not_there():
    with pytest.raises(UserError, match="MODEL: 'tiny/giant': no embedded model"):
        server_process(["tiny/giant"])


def test_a_token_is_in_the_environment_and_not_in_the_arguments(monkeypatch, capsys):
    command, environment = server_process(["tiny/student", "--token", "s3cret", "--host", "0.0.0.0"])
    assert environment[TOKEN_VARIABLE] == "s3cret"
    assert not any("s3cret" in argument for argument in command)
    monkeypatch.setenv(TOKEN_VARIABLE, "other")
    assert server_process(["tiny/student", "--host", "0.0.0.0"])[1][TOKEN_VARIABLE] == "other"
    assert capsys.readouterr().err == ""


def test_a_server_for_other_machines_without_a_token_gets_a_warning(capsys):
    server_process(["tiny/student", "--host", "0.0.0.0"])
    assert "any program that reaches 0.0.0.0:8001 may replace the weights" in capsys.readouterr().err
    server_process(["tiny/student"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("token", ["", "a b"])
def test_a_token_that_no_header_can_hold(token):
    with pytest.raises(UserError, match=r"--token: ''|FIREOPD_SERVER_TOKEN: '\(hidden\)'"):
        server_process(["tiny/student", "--token", token])


def test_the_server_of_a_teacher_scores_and_loads_no_weights(capsys):
    command, environment = server_process(["tiny/math", "--teacher", "--eager", "--host", "0.0.0.0"])
    options = " ".join(command)
    assert "--runner pooling" in options
    assert f"--middleware {GUARD}" in options
    assert WORKER_EXTENSION not in options
    assert "VLLM_SERVER_DEV_MODE" not in environment
    card = TeacherCard(**json.loads(environment[CARD_VARIABLE]))
    assert (card.model, card.architecture, card.vocabulary) == ("tiny/math", "Qwen3ForCausalLM", 48)
    assert "may let it score" in capsys.readouterr().err

"""Command that starts a vLLM server."""

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from fireopd.cli.commands.serve import vllm_command
from fireopd.engines.vllm import worker
from fireopd.engines.vllm.worker import WORKER_EXTENSION
from fireopd.errors import UserError
from fireopd.models.loading import resolve


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    if find_spec("vllm") is None:
        monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.32.0"))


def test_settings_become_options_of_vllm_and_others_are_passed_on():
    arguments = ["tiny/student", "--port", "8005", "--kv_cache_gib", "0.5", "--eager", "--tensor-parallel-size", "2"]
    command = vllm_command(arguments)
    assert command[:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model", resolve("tiny/student", "x")]
    options = " ".join(command)
    for part in ("--host 127.0.0.1", "--port 8005", f"--kv-cache-memory-bytes {2**29}", "--tensor-parallel-size 2"):
        assert part in options
    for part in ("--enforce-eager", "--enable-scale-out", "--logprobs-mode processed_logprobs", "--dtype float32"):
        assert part in options


def test_the_worker_extension_is_where_its_name_says():
    module, _, name = WORKER_EXTENSION.rpartition(".")
    assert module == worker.__name__
    assert callable(vars(worker)[name].load_snapshot)


def test_a_model_that_is_not_there():
    with pytest.raises(UserError, match="MODEL: 'tiny/giant': no embedded model"):
        vllm_command(["tiny/giant"])

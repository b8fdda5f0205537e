"""`fireopd serve MODEL --port PORT`: start a vLLM server for the rollouts of `VLLMServerEngine`.

The server accepts weight updates and other commands from any client that can reach its port. Use it only on this
machine or in a private network. Options that are not listed here are passed to vLLM, for example
--tensor-parallel-size 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from fireopd.engines.vllm.engine import import_vllm
from fireopd.engines.vllm.worker import WORKER_EXTENSION
from fireopd.models.loading import resolve

__all__ = ["run", "vllm_command"]


def run(arguments: Sequence[str]) -> None:
    """Replace the current process by the server."""
    level = os.environ.get("VLLM_LOGGING_LEVEL", "INFO")
    command = vllm_command(arguments)
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_LOGGING_LEVEL": level}
    os.execve(sys.executable, [sys.executable, *command], environment)


def vllm_command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the Python interpreter that start the server.

    Raises:
        UserError: if the model does not exist, or vLLM is not installed.
    """
    parser = argparse.ArgumentParser("fireopd serve", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="student: a model folder, a hub name, or an embedded model")
    parser.add_argument("--port", type=int, default=8001, help="port, default 8001")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on, default 127.0.0.1 (this machine only)"
    )
    parser.add_argument("--dtype", default="float32", help="data type of the parameters, default float32")
    parser.add_argument(
        "--memory_fraction", type=float, default=0.9, help="fraction of the GPU or CPU memory to use, default 0.9"
    )
    parser.add_argument(
        "--kv_cache_gib",
        type=float,
        help="size of the KV cache in GiB, instead of --memory_fraction; 1 is enough for small models on a CPU",
    )
    parser.add_argument("--eager", action="store_true", help="do not compile the model: faster start, slower decoding")
    settings, others = parser.parse_known_args(list(arguments))
    folder = resolve(settings.model, "MODEL")
    import_vllm("COMMAND", "serve")
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", settings.model]
    command += ["--host", settings.host, "--port", str(settings.port), "--dtype", settings.dtype]
    command += ["--gpu-memory-utilization", str(settings.memory_fraction)]
    if settings.kv_cache_gib is not None:
        command += ["--kv-cache-memory-bytes", str(int(settings.kv_cache_gib * 2**30))]
    command += ["--enforce-eager"] if settings.eager else []
    command += [] if torch.cuda.is_available() else ["--no-enable-chunked-prefill"]  # see VLLMEngine.setup
    command += [
        "--worker-extension-cls",
        WORKER_EXTENSION,
        "--enable-scale-out",
        "--logprobs-mode",
        "processed_logprobs",
    ]
    command += ["--generation-config", "vllm", "--disable-log-stats", "--disable-uvicorn-access-log"]
    return [*command, *others]

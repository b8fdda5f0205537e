"""`fireopd serve MODEL --port PORT`: start a vLLM server for the rollouts of `VLLMServerEngine`.

With --teacher the server scores trajectories for a `VLLMTeacher`, and its weights cannot be replaced.

The server answers only the requests that fireopd sends, and refuses those of web pages. Without a token, any program
that reaches its port may replace the weights: set a token unless all users of this machine are trusted, and always with
--host. Options that are not listed here are passed to vLLM, for example --tensor-parallel-size 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fireopd.cli.command_parser import CommandParser
from fireopd.engines.vllm.installation import import_vllm
from fireopd.engines.vllm.request_guard import GUARD, TOKEN_VARIABLE, server_token
from fireopd.engines.vllm.teacher_card import CARD_VARIABLE, TeacherCard
from fireopd.engines.vllm.worker import WORKER_EXTENSION
from fireopd.errors import UserError
from fireopd.models.hub_names import check_hub_name
from fireopd.models.loading import resolve

__all__ = ["run", "server_process", "vllm_command"]


def run(arguments: Sequence[str]) -> None:
    """Replace the current process by the server."""
    command, environment = server_process(arguments)
    os.execve(sys.executable, [sys.executable, *command], environment)


def server_process(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of the Python interpreter that start the server, and its environment variables.

    The token is in the environment only, since all users of a machine can read the arguments of its processes.

    Raises:
        UserError: if the model does not exist, vLLM is not installed, or the token is invalid.
    """
    settings, others = _parser().parse_known_args(list(arguments))
    command = [*vllm_command(settings), *others]
    if settings.token == "":
        raise UserError("--token", "", "the token is empty", f"set a token, or leave it out to use {TOKEN_VARIABLE}")
    if settings.token is not None:
        os.environ[TOKEN_VARIABLE] = settings.token
    if server_token() is None and settings.host not in ("127.0.0.1", "localhost", "::1"):
        danger = "let it score" if settings.teacher else "replace the weights"
        print(
            f"Warning: any program that reaches {settings.host}:{settings.port} may {danger}. Set a token: "
            f"export {TOKEN_VARIABLE}=..., for the server and for fireopd fit.",
            file=sys.stderr,
        )
    if settings.teacher:
        return command, teacher_environment(settings.model)
    level = os.environ.get("VLLM_LOGGING_LEVEL", "INFO")
    return command, os.environ | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_LOGGING_LEVEL": level}


def teacher_environment(model: str) -> dict[str, str]:
    """Return the environment variables of a teacher server, with the card of its model."""
    level = os.environ.get("VLLM_LOGGING_LEVEL", "INFO")
    return os.environ | {CARD_VARIABLE: TeacherCard.of_model(model, "MODEL").as_json(), "VLLM_LOGGING_LEVEL": level}


def vllm_command(settings: argparse.Namespace) -> list[str]:
    """Return the arguments of the Python interpreter that start vLLM with the settings of the command."""
    folder = resolve(settings.model, "MODEL")
    if not Path(folder).is_dir():
        check_hub_name(folder, "MODEL")
    import_vllm("COMMAND", "serve")
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", settings.model]
    command += ["--host", settings.host, "--port", str(settings.port), "--dtype", settings.dtype]
    command += ["--gpu-memory-utilization", str(settings.memory_fraction)]
    if settings.kv_cache_gib is not None:
        command += ["--kv-cache-memory-bytes", str(int(settings.kv_cache_gib * 2**30))]
    command += ["--enforce-eager"] if settings.eager else []
    command += ["--middleware", GUARD, "--disable-log-stats", "--disable-uvicorn-access-log"]
    if settings.teacher:
        return [*command, "--runner", "pooling"]
    command += [] if torch.cuda.is_available() else ["--no-enable-chunked-prefill"]  # see VLLMEngine.setup
    command += ["--worker-extension-cls", WORKER_EXTENSION, "--enable-scale-out"]
    return [*command, "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]


def _parser() -> CommandParser:
    parser = CommandParser("serve", __doc__)
    parser.add_argument("model", help="student or teacher: a model folder, a hub name, or an embedded model")
    parser.add_argument("--teacher", action="store_true", help="score trajectories for a VLLMTeacher, without rollouts")
    parser.add_argument("--port", type=int, default=8001, help="port, default 8001")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on, default 127.0.0.1 (this machine only)"
    )
    parser.add_argument(
        "--token", help=f"secret that requests must contain; default: the environment variable {TOKEN_VARIABLE}, if set"
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
    return parser

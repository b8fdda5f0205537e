"""Peak memory of the student's update, tracked without memory: the real update on tensors that have shapes only.

python scripts/dry_run_memory.py 1.7B fsdp --gpus 8 --out runs/dry_run.json

One process plays rank 0 of a fake process group. Forward pass with gradient checkpointing, chunked log-probabilities,
backward pass on the gradients of an earlier micro-batch, and a step of AdamW run under `FakeTensorMode`.
`MemTracker` of PyTorch, or `FSDPMemTracker` for FSDP2, counts the bytes. Flash attention is the operator of a GPU,
products with float32 results are tensors of the same shapes, and the optimizer steps on the local shards. The result is
printed with the estimate of the plan for the same update.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, Qwen3Config

from fireopd.distributed.fsdp import Sharding
from fireopd.models import chunked_logprobs
from fireopd.models.model_size import count_parameters
from fireopd.models.output_head import backbone
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer
from fireopd.training.layer_memory import shapes_only_attention, without_values
from fireopd.training.update_memory import ModelPasses, update_moments

DENSE = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True}
MODELS = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
}
"""Published shapes of Qwen3."""
STRATEGIES = ("single", "ddp", "fsdp")


class Highest:
    """Trackers that keep the highest total only; those of each module are not needed and take most of the time."""

    def _update_peak_stats(self, peak_state: Any) -> None:
        for device, own in self._curr_mem_snap.items():  # type: ignore[attr-defined]
            if own["Total"] > self._peak_mem.get(device, 0):  # type: ignore[attr-defined]
                self._peak_mem[device] = own["Total"]  # type: ignore[attr-defined]
                self._peak_mem_snap[device] = dict(own)  # type: ignore[attr-defined]


class Tracker(Highest, MemTracker):
    """Tracker of a model that is not sharded."""


class ShardedTracker(Highest, FSDPMemTracker):
    """Tracker of a model under FSDP2."""


class DryScorer(CausalScorer):
    """Scorer that selects tokens by indices: a mask has no values here."""

    def forward(self, tokens: Tensor, selected: Tensor) -> Tensor:
        """Return the log-probabilities of the selected tokens."""
        hidden_states = backbone(self.model)(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
        inputs = hidden_states.flatten(0, 1).index_select(0, selected)
        return self._score_tokens(inputs, tokens[:, 1:].flatten(), 1.0, False)["logprobs"]


@contextmanager
def gpu_products() -> Iterator[None]:
    """Context in which products of half precision with float32 results allocate what those of a GPU do."""

    def product(hidden_states: Tensor, weight: Tensor, bias: Tensor | None, block: int = 0) -> Tensor:
        return hidden_states.new_empty(len(hidden_states), len(weight), dtype=torch.float32)

    def add_product(accumulator: Tensor, a: Tensor, b: Tensor) -> None:
        accumulator.add_(1)

    saved = chunked_logprobs.product, chunked_logprobs.add_product
    chunked_logprobs.product, chunked_logprobs.add_product = product, add_product
    try:
        yield
    finally:
        chunked_logprobs.product, chunked_logprobs.add_product = saved


class Reducer:
    """Reducer of DDP that keeps its first buckets; the order of new ones would be exchanged as values."""

    def __init__(self, reducer: Any) -> None:
        """Wrap a reducer."""
        self.reducer = reducer

    def __getattr__(self, name: str) -> Any:
        """Return what the reducer has."""
        return getattr(self.reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False


def replicated(scorer: nn.Module) -> nn.Module:
    """Return a module for DDP whose sums over the processes are those of this process."""

    def reduce(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    student = DistributedDataParallel(scorer, init_sync=False)
    student.register_comm_hook(None, reduce)
    student.reducer = Reducer(student.reducer)
    return student


def local(tensor: Any) -> Tensor:
    """Return the shard of this process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def track(config: Qwen3Config, strategy: str, tokens: int, rows: int, gpus: int) -> dict[str, dict[str, int]]:
    """Return bytes by kind of tensor, and in total, at the peak of the passes and of the optimizer step."""
    with torch.device("meta"):
        name = shapes_only_attention(gpu=True)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=name).train()
    model.gradient_checkpointing_enable()
    sharded = strategy == "fsdp"
    precision = nullcontext() if sharded else torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
    mesh = dist.init_device_mesh("cpu", (gpus,)) if sharded else None
    with without_values(model), gpu_products():
        scorer: Any = DryScorer(model, CHUNK_LOGITS)
        if sharded:
            Sharding(param_dtype="bfloat16").shard(scorer, mesh, frozen=False)
        shards = [nn.Parameter(local(p.detach())) for p in scorer.parameters()]
        optimizer = torch.optim.AdamW(shards, fused=True)
        for shard in shards:
            shard.grad = torch.empty_like(shard)
        optimizer.step()  # the states exist from the second step on
        optimizer.zero_grad()
        for parameter in scorer.parameters():
            parameter.grad = torch.empty_like(parameter)  # of an earlier micro-batch
        batch = torch.empty(rows, tokens // rows, dtype=torch.int64)
        selected = torch.empty(rows * (tokens // rows - 1), dtype=torch.int64)
        student = replicated(scorer) if strategy == "ddp" else scorer
        tracker: Any = ShardedTracker(scorer) if sharded else Tracker()
        if sharded:
            tracker.track_inputs((batch, selected, *(x for state in optimizer.state.values() for x in state.values())))
        else:
            tracker.track_external(student, optimizer, batch, selected)
        with tracker:
            with precision:
                student(batch, selected).sum().backward()
            passes = tracker.get_tracker_snapshot("peak")
            for shard, parameter in zip(shards, scorer.parameters(), strict=True):
                shard.grad = local(parameter.grad)
            optimizer.step()
            step = tracker.get_tracker_snapshot("peak")
    return {"passes": _plain(passes), "step": _plain(step)}


def _plain(snapshot: Any) -> dict[str, int]:
    [own] = snapshot.values()
    return {str(getattr(kind, "value", kind)): size for kind, size in own.items() if size}


def estimated(config: Qwen3Config, strategy: str, tokens: int, rows: int, gpus: int) -> dict[str, int]:
    """Return the bytes of the update at each of its moments, as the plan of a run estimates them."""
    sharded = strategy == "fsdp"
    passes = ModelPasses(
        config=config,
        dtype="float32",
        autocast=None if sharded else "bfloat16",
        param_dtype="bfloat16" if sharded else None,
        tokens=tokens,
        row=tokens // rows,
        gpu=True,
    )
    budgets = SimpleNamespace(chunk_logits=CHUNK_LOGITS, gradient_checkpointing=True)
    run: Any = SimpleNamespace(
        budgets=budgets,
        adapter=None,
        distributions=False,
        sharding=Sharding(param_dtype="bfloat16"),
        processes=SimpleNamespace(device=torch.device("cuda")),
        optimizer=partial(torch.optim.AdamW, fused=True),
    )
    shards = gpus if sharded else 1
    trained = count_parameters(config) // shards
    states = trained * (20 if strategy == "ddp" else 16)  # weights, gradients, two moments, and the buckets of DDP
    moments = update_moments(passes, run, trained)
    return {name: states + sum(part.size for part in parts) for name, parts in moments.items()}


def main() -> None:
    """Run one case, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("strategy", choices=STRATEGIES)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=18_432)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    gpus = 1 if given.strategy == "single" else given.gpus
    if gpus > 1:
        dist.init_process_group("fake", rank=0, world_size=gpus, store=FakeStore())
    config = Qwen3Config(**DENSE | MODELS[given.model] | ({"num_hidden_layers": given.layers} if given.layers else {}))
    began = time.perf_counter()
    found = track(config, given.strategy, given.tokens, given.rows, gpus)
    result = {"model": given.model, "strategy": given.strategy, "gpus": gpus, "tokens": given.tokens, **found}
    result["estimated"] = estimated(config, given.strategy, given.tokens, given.rows, gpus)
    tracked, expected = result["step"]["Total"], max(result["estimated"].values())
    result |= {"tracked_gb": round(tracked / 1e9, 2), "estimated_gb": round(expected / 1e9, 2)}
    result["difference"] = f"{expected / tracked - 1:+.1%}"
    result["seconds"] = round(time.perf_counter() - began)
    text = json.dumps(result)
    print(text)
    if given.out is not None:
        with given.out.open("a") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()

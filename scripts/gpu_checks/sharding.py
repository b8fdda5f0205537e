"""Question 4: FSDP2 in one process with bfloat16 computation and float32 shards."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from fireopd.distributed.fsdp import Sharding
from fireopd.models.scorer import CausalScorer
from fireopd.models.weight_stream import WeightStream
from gpu_checks.measure import attempt, held, measure, model_tflop, relative_difference, release, utilization
from gpu_checks.random_models import random_model, random_rows
from gpu_checks.sizes import Row, Sizes


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield the gradients against float32, then time and peak of the 1.7B model, then its stream of weights."""
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if sizes.on_gpu else "gloo"
        store = dist.FileStore(str(Path(folder, "store")), 1)
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
        try:
            mesh = init_device_mesh(sizes.device.type, (1,), mesh_dim_names=("data_parallel",))
            yield from gradients(sizes, mesh)
            release()
            yield from full_model(sizes, mesh)
        finally:
            dist.destroy_process_group()


def gradients(sizes: Sizes, mesh: DeviceMesh) -> Iterator[Row]:
    """Yield the relative difference of bfloat16 gradients from float32, by precision."""
    expected = gradient(sizes, "float32", mesh)
    shown = f"{sizes.sharded_layers} layers of Qwen3-1.7B, gradients"
    for name in ("autocast", "FSDP2, param_dtype bfloat16", "FSDP2, param_dtype float32"):

        def compare(name: str = name) -> Row:
            found = gradient(sizes, name, mesh)
            return {"relative difference from float32": relative_difference(iter(found), iter(expected))}

        yield attempt(f"{shown}, {name}", compare)


def gradient(sizes: Sizes, precision: str, mesh: DeviceMesh) -> list[torch.Tensor]:
    """Return the gradients of all parameters, float32."""
    model = random_model("Qwen3-1.7B", sizes, torch.float32, sizes.sharded_layers).model
    scorer = CausalScorer(model)
    if precision.startswith("FSDP2"):
        shard(scorer, mesh, precision.rpartition(" ")[2])
    tokens, mask = random_rows(sizes, model.config.vocab_size, *sizes.sharded_shape)
    with torch.autocast(sizes.device.type, torch.bfloat16, enabled=precision == "autocast"):
        scores = scorer(tokens, mask, entropy=True)
    (scores.logprobs.sum() / mask.sum()).backward()
    found = [parameter.grad for parameter in scorer.parameters()]
    return [(g.full_tensor() if hasattr(g, "full_tensor") else g).float() for g in found if g is not None]


def shard(scorer: CausalScorer, mesh: DeviceMesh, dtype: str) -> None:
    """Shard a student as a run does."""
    Sharding(param_dtype=dtype).shard(scorer, mesh, frozen=False)  # type: ignore[arg-type]


def full_model(sizes: Sizes, mesh: DeviceMesh) -> Iterator[Row]:
    """Yield forward and backward of the 1.7B model with checkpointing, and the stream of its weights."""
    shape = random_model("Qwen3-1.7B", sizes, torch.float32)
    shape.model.gradient_checkpointing_enable()
    scorer = CausalScorer(shape.model)
    shard(scorer, mesh, "bfloat16")
    yield {"case": "Qwen3-1.7B, FSDP2, param_dtype bfloat16: sharded", **held(sizes)}
    for rows, length in sizes.update_shapes:
        tokens, mask = random_rows(sizes, shape.model.config.vocab_size, rows, length)

        def work(tokens: torch.Tensor = tokens, mask: torch.Tensor = mask) -> None:
            scores = scorer(tokens, mask, entropy=True)
            (scores.logprobs.sum() / mask.sum()).backward()

        def timed(rows: int = rows, length: int = length, work: object = work) -> Row:
            row = measure(sizes, work, repeats=2)  # type: ignore[arg-type]
            tflop = model_tflop(shape.model.config, shape.active, rows, length, backward=True)
            return row | utilization(sizes, tflop, row["ms"])

        yield attempt(f"Qwen3-1.7B, FSDP2, param_dtype bfloat16: forward and backward, {rows} x {length}", timed)
        scorer.zero_grad()
        release()
    yield attempt("Qwen3-1.7B, FSDP2: stream of all weights", partial(stream, sizes, scorer))


def stream(sizes: Sizes, scorer: CausalScorer) -> Row:
    """Return time, peak and bytes of one pass over the weights that an engine would load."""

    @torch.no_grad()
    def work() -> int:
        return sum(tensor.nbytes for _, tensor in WeightStream(scorer.model))

    return measure(sizes, work) | {"GB": work() / 1e9}

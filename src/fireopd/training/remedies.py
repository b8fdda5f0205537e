"""Changes of a run that does not fit its GPUs, tried in the order of their cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fireopd.engines.vllm.engine import VLLMEngine
from fireopd.teachers import HFTeacher
from fireopd.training.memory_phases import GIB, memory_phases
from fireopd.training.rollout_capacity import cache_tokens
from fireopd.training.run_plan import RunPlan

__all__ = ["REMEDIES", "Remedy", "cheapest_remedy", "shortages"]

SMALL_CHUNK = 2**23
"""Logits held at once with smaller chunks: 32 MiB in float32."""
MOST_GPUS = 1024
"""Largest number of GPUs that is tried."""


@dataclass(frozen=True)
class Remedy:
    """A changed run."""

    plan: RunPlan
    """The run with the change."""
    arguments: tuple[str, ...]
    """Arguments of the command line that make it."""


Change = Callable[[RunPlan, int], Remedy | None]


def shortages(plan: RunPlan, memory: int) -> list[str]:
    """Return what does not fit a GPU of `memory` bytes, one sentence each."""
    found = [
        f"the {phase.name} phase needs {phase.total / GIB:.1f} of {memory / GIB:.1f} GiB"
        for phase in memory_phases(plan, memory)
        if phase.total > memory
    ]
    engine, gpus = plan.data.engine, plan.processes.world_size
    if isinstance(engine, VLLMEngine):
        if (gpus // plan.processes.nodes) % engine.tensor_parallel_size:
            found.append(f"tensor_parallel_size {engine.tensor_parallel_size} does not divide the GPUs of a machine")
        elif cache_tokens(plan, memory) < plan.data.longest_trajectory:
            found.append(f"vLLM has no room for the cache of {plan.data.longest_trajectory} tokens")
    return found


def cheapest_remedy(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the first combination of changes, in the order of their cost, with which a run fits; None if none does.

    Changes are added until the run fits. Then each one is left out again if the run fits without it, the most expensive
    of them first.
    """
    taken: list[Change] = []
    for change in REMEDIES:
        if _combined(plan, memory, [*taken, change]).plan == _combined(plan, memory, taken).plan:
            continue
        taken.append(change)
        if not shortages(_combined(plan, memory, taken).plan, memory):
            break
    else:
        return None
    for change in reversed(taken[:-1]):
        fewer = [other for other in taken if other is not change]
        if not shortages(_combined(plan, memory, fewer).plan, memory):
            taken = fewer
    return _combined(plan, memory, taken)


def _combined(plan: RunPlan, memory: int, changes: Sequence[Change]) -> Remedy:
    arguments: dict[str, str] = {}
    for change in changes:
        made = change(plan, memory)
        if made is not None:
            plan = made.plan
            arguments |= dict(argument.split("=", 1) for argument in made.arguments)
    return Remedy(plan, tuple(f"{key}={value}" for key, value in arguments.items()))


def _budgets(plan: RunPlan, name: str, value: Any) -> Remedy:
    shown = str(value).lower() if isinstance(value, bool) else value
    return Remedy(replace(plan, budgets=replace(plan.budgets, **{name: value})), (f"--model.{name}={shown}",))


def _engine(plan: RunPlan, name: str, value: Any) -> Remedy:
    shown = str(value).lower() if isinstance(value, bool) else value
    engine = replace(plan.data.engine, **{name: value})
    return Remedy(replace(plan, data=replace(plan.data, engine=engine)), (f"--data.engine.{name}={shown}",))


def _divide_engine(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run with as many GPUs of an engine as a machine has, if they do not divide."""
    engine, gpus = plan.data.engine, plan.processes.world_size // plan.processes.nodes
    if not isinstance(engine, VLLMEngine) or gpus % engine.tensor_parallel_size == 0:
        return None
    size = max(size for size in range(1, engine.tensor_parallel_size + 1) if gpus % size == 0)
    return _engine(plan, "tensor_parallel_size", size)


def _half_precision(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run with computation in bfloat16."""
    processes = plan.processes
    if processes.sharded and plan.sharding.param_dtype is None and plan.dtype == "float32":
        changed = replace(plan, sharding=replace(plan.sharding, param_dtype="bfloat16"))
        return Remedy(changed, ("--model.sharding.param_dtype=bfloat16",))
    if not processes.sharded and processes.precision == "32-true":
        changed = replace(plan, processes=replace(processes, precision="bf16-mixed"))
        return Remedy(changed, ("--trainer.precision=bf16-mixed",))
    return None


def _checkpointing(plan: RunPlan, memory: int) -> Remedy | None:
    return None if plan.budgets.gradient_checkpointing else _budgets(plan, "gradient_checkpointing", True)


def _sleep(plan: RunPlan, memory: int) -> Remedy | None:
    engine = plan.data.engine
    if not isinstance(engine, VLLMEngine) or engine.sleep or plan.data.overlap:
        return None
    return _engine(plan, "sleep", True)


def _token_budget(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run with micro-batches of one longest row."""
    longest, arguments = plan.data.longest_trajectory, []
    if plan.budgets.token_budget > longest:
        plan = _budgets(plan, "token_budget", longest).plan
        arguments.append(f"--model.token_budget={longest}")
    teachers = dict(plan.teachers)
    for name, teacher in plan.teachers.items():
        if isinstance(teacher, HFTeacher) and teacher.token_budget > longest:
            teachers[name] = replace(teacher, token_budget=longest)
            arguments.append(f"--model.teachers.{name}.token_budget={longest}")
    return Remedy(replace(plan, teachers=teachers), tuple(arguments)) if arguments else None


def _chunk_logits(plan: RunPlan, memory: int) -> Remedy | None:
    return _budgets(plan, "chunk_logits", SMALL_CHUNK) if plan.budgets.chunk_logits > SMALL_CHUNK else None


def _memory_fraction(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run with the largest fraction for vLLM that leaves room for the rest."""
    engine = plan.data.engine
    if not isinstance(engine, VLLMEngine) or engine.kv_cache_gib is not None:
        return None
    phases = {phase.name: phase.total for phase in memory_phases(plan, memory)}
    own = int(engine.memory_fraction * memory)
    others = max(phases["rollout"], 0 if engine.releases_memory else max(phases.values())) - own
    fraction = int((memory - others) / memory * 20) / 20
    return _engine(plan, "memory_fraction", fraction) if 0 < fraction < engine.memory_fraction else None


def _offload_teachers(plan: RunPlan, memory: int) -> Remedy | None:
    if plan.sharding.offload_teachers or not plan.frozen_models:
        return None
    changed = replace(plan, sharding=replace(plan.sharding, offload_teachers=True))
    return Remedy(changed, ("--model.sharding.offload_teachers=true",))


def _eight_bit_states(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run with the AdamW of torchao, whose states take 2 bytes a parameter instead of 8."""
    if plan.adapter is not None or type(plan.optimizer([nn.Parameter(torch.zeros(1))])) is not torch.optim.AdamW:
        return None
    return Remedy(replace(plan, optimizer=_EightBitStates), ("--model.optimizer=torchao.optim.AdamW8bit",))


class _EightBitStates(torch.optim.Optimizer):
    """Stand-in for torchao's AdamW8bit in an estimate: a step makes states of its size."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override] # no loss
        """Create two states of one byte a parameter."""
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {
                name: torch.zeros_like(parameter, dtype=torch.uint8) for name in ("mean", "square")
            }


def _offload_student(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run with shards, gradients and optimizer states of the student in host memory, under FSDP2."""
    if plan.sharding.offload_student:
        return None
    made = _sharded(plan, plan.processes.world_size)
    sharding = replace(made.plan.sharding, offload_student=True)
    return Remedy(replace(made.plan, sharding=sharding), (*made.arguments, "--model.sharding.offload_student=true"))


def _shard(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run with models sharded over the GPUs that it has."""
    processes = plan.processes
    return None if processes.sharded or processes.world_size == 1 else _sharded(plan, processes.world_size)


def _sharded(plan: RunPlan, gpus: int) -> Remedy:
    arguments = ["--trainer.strategy=FSDP2Strategy"] if not plan.processes.sharded else []
    if plan.processes.precision != "32-true":
        arguments.append("--trainer.precision=32-true")
    if plan.sharding.param_dtype is None and plan.dtype == "float32":
        arguments.append("--model.sharding.param_dtype=bfloat16")
    processes = replace(plan.processes.on_gpus(gpus, sharded=True), precision="32-true")
    sharding = replace(plan.sharding, param_dtype=plan.sharding.param_dtype or "bfloat16")
    return Remedy(replace(plan, processes=processes, sharding=sharding), tuple(arguments))


def _more_gpus(plan: RunPlan, memory: int) -> Remedy | None:
    """Return the run sharded over the smallest multiple of its GPUs that holds it, by doubling."""
    gpus = 2 * plan.processes.world_size
    while gpus <= MOST_GPUS:
        made = _sharded(plan, gpus)
        if not shortages(made.plan, memory):
            return Remedy(made.plan, (f"--gpus={gpus}", *made.arguments))
        gpus *= 2
    return None


REMEDIES: tuple[Change, ...] = (
    _divide_engine,
    _half_precision,
    _checkpointing,
    _sleep,
    _token_budget,
    _chunk_logits,
    _memory_fraction,
    _offload_teachers,
    _shard,
    _eight_bit_states,
    _offload_student,
    _more_gpus,
)
"""Changes from the cheapest to the most expensive, in seconds of a step, then in GPUs."""

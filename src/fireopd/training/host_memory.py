"""Host memory of a machine, before any model is loaded."""

from fireopd.models.model_size import count_parameters, dtype_size
from fireopd.training.memory_estimate import Part, optimizer_bytes
from fireopd.training.memory_phases import GIB, checkpoint_bytes, frozen_models, student_passes, trained_parameters
from fireopd.training.run_plan import RunPlan

__all__ = ["host_parts"]

PROCESS = 4 * GIB
"""Python, PyTorch, CUDA libraries, vLLM and prompts in one process; assumed."""


def host_parts(plan: RunPlan) -> list[Part]:
    """Return the parts of the host memory of one machine."""
    processes = plan.processes
    here = processes.world_size // processes.nodes
    student = student_passes(plan)
    count, width = count_parameters(student.config), dtype_size(plan.dtype)
    frozen = {
        label: teacher.memory(1) or {}
        for label, teacher in frozen_models(plan).items()
        if not plan.shares_weights(teacher)
    }
    sizes = {label: sum(size for size, _ in parts.values()) for label, parts in frozen.items()}
    whole, copies = max([count * width, *sizes.values()]), 1 if processes.sharded else here
    parts = [
        Part("processes", here * PROCESS, f"{here} processes x {PROCESS / GIB:.0f} GiB, assumed"),
        Part("loading", copies * whole, f"{copies} x the largest model, {whole / GIB:.1f} GiB"),
    ]
    engine = plan.data.engine
    if engine.releases_memory and processes.device.type == "cuda":
        own = count * dtype_size(getattr(engine, "dtype", "bfloat16")) // getattr(engine, "tensor_parallel_size", 1)
        parts.append(Part("vLLM asleep", here * own, f"{here} processes x {own / GIB:.1f} GiB of its weights"))
    held = processes.nodes if processes.sharded else 1 / here
    if plan.sharding.offload_teachers:
        parts.append(Part("teachers", int(sum(sizes.values()) / held), "weights on this machine (offload_teachers)"))
    if plan.sharding.offload_student:
        trained = trained_parameters(plan, student)
        own = dtype_size("float32" if plan.adapter is not None else plan.dtype)
        size = count * width + trained * (own + optimizer_bytes(plan.optimizer))
        parts.append(Part("student", int(size / held), "weights, gradients, optimizer states (offload_student)"))
    if processes.background_checkpoints:
        pinned = 2 if processes.device.type == "cuda" else 1
        size = pinned * checkpoint_bytes(plan) // (processes.nodes if processes.sharded else 1)
        rounding = ", twice: pinned memory is allocated in powers of two" if pinned > 1 else ""
        parts.append(Part("checkpoint", size, f"copy that is written in the background{rounding}"))
    return parts

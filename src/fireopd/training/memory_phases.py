"""Memory of one process in each phase of a run, by part, before any model is loaded."""

from dataclasses import dataclass, replace
from itertools import chain

from fireopd.models.loading import load_config
from fireopd.models.model_size import count_parameters, dtype_size
from fireopd.teachers import EMAStudentTeacher, HFTeacher, StudentTeacher, Teacher
from fireopd.training.memory_estimate import Part, cache_per_token, optimizer_bytes
from fireopd.training.planned_rows import rows_of_process, with_writers
from fireopd.training.run_plan import RunPlan
from fireopd.training.update_memory import ModelPasses, scoring_parts, update_moments

__all__ = [
    "GIB",
    "Phase",
    "checkpoint_bytes",
    "frozen_models",
    "largest",
    "memory_phases",
    "student_passes",
    "teacher_passes",
    "trained_parameters",
]

GIB = 2**30
"""Bytes of a GiB."""
UNKNOWN = "not included"
"""Start of the formula of a part whose size is not known."""
CUDA = int(1.5 * GIB)
"""Context of CUDA with the kernels of PyTorch, and workspaces of its libraries; assumed."""
NCCL = int(1.5 * GIB)
"""Buffers of NCCL with several processes; assumed."""
SLEEPING = 2 * GIB
"""Memory of vLLM that sleeps: its CUDA graphs and its part of the context; assumed."""
FRAGMENTATION = 0.05
"""Memory that PyTorch's allocator cannot use, as a fraction of all that is allocated and freed in a phase; assumed."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Memory of a process in one phase of a run, at its peak."""

    name: str
    """`loading`, `rollout`, `scoring`, `update` or `checkpoint`."""
    moment: str
    """Moment of the peak within the phase; empty if the phase has one moment."""
    parts: tuple[Part, ...]
    """All parts."""

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)


def memory_phases(plan: RunPlan, memory: int) -> list[Phase]:
    """Return the phases of a run in order: loading, rollout with weight sync, scoring, update, checkpoint.

    Args:
        plan: description of the run.
        memory: memory of the device, bytes.
    """
    gpu = plan.processes.device.type == "cuda"
    student = student_passes(plan)
    engine, sleeping = _engine(plan, student, memory if gpu else None), _sleeping(plan, gpu=gpu)
    rollout = with_writers(plan, engine)
    kept = [*_student(plan, student), *_teachers(plan), *_runtime(plan, gpu=gpu)]
    resting = sleeping if plan.data.engine.releases_memory and gpu else rollout if plan.data.overlap else engine
    scoring = {label: [*kept, *resting, *_passing(parts, gpu=gpu)] for label, parts in _scoring(plan, student).items()}
    gradients = _gradients(plan, student)
    shared = [*kept, *resting, gradients]
    moments = update_moments(student, plan, trained_parameters(plan, student) // plan.processes.shards)
    update = {label: [*shared, *_passing(parts, gpu=gpu)] for label, parts in moments.items()}
    return [
        _worst("loading", _loading(plan, student, gpu=gpu)),
        Phase("rollout", "", (*kept, *rollout, *_sync(plan, student))),
        _worst("scoring", scoring),
        _worst("update", update),
        Phase("checkpoint", "", (*kept, *resting)),
    ]


def largest(phases: list[Phase]) -> Phase:
    """Return the phase with the highest peak."""
    return max(phases, key=lambda phase: phase.total)


def student_passes(plan: RunPlan) -> ModelPasses:
    """Return the student, and how it computes."""
    processes, tokens = plan.processes, max(plan.budgets.token_budget, plan.data.longest_trajectory)
    return ModelPasses(
        config=load_config(plan.student, "model.student"),
        dtype=plan.dtype,
        autocast="bfloat16" if processes.precision == "bf16-mixed" and plan.dtype != "bfloat16" else None,
        param_dtype=(plan.sharding.param_dtype or plan.dtype) if processes.sharded else None,
        tokens=tokens,
        row=plan.data.longest_trajectory,
        gpu=processes.device.type == "cuda",
    )


def trained_parameters(plan: RunPlan, student: ModelPasses) -> int:
    """Return the number of trained parameters: all of the student, or those of its adapter."""
    return count_parameters(student.config) if plan.adapter is None else plan.adapter.size(student.config)


def checkpoint_bytes(plan: RunPlan) -> int:
    """Return the bytes of one checkpoint: trained parameters, moving averages of them, and optimizer states."""
    trained = trained_parameters(plan, student_passes(plan))
    width = _trained_width(plan)
    averages = {own.decay for own in frozen_models(plan).values() if isinstance(own, EMAStudentTeacher)}
    return int(trained * (width * (1 + len(averages)) + optimizer_bytes(plan.optimizer)))


def _trained_width(plan: RunPlan) -> int:
    return dtype_size("float32" if plan.adapter is not None else plan.dtype)


def _student(plan: RunPlan, student: ModelPasses) -> list[Part]:
    """Return weights and optimizer states of the student."""
    shards, over = plan.processes.shards, _over(plan)
    count, width, slots = count_parameters(student.config), dtype_size(plan.dtype), optimizer_bytes(plan.optimizer)
    trained = trained_parameters(plan, student)
    parts = [Part("student: weights", count * width // shards, f"{count / 1e6:.1f} M parameters x {width} B{over}")]
    if plan.adapter is not None:
        parts.append(Part("student: adapter", trained * 4 // shards, f"{trained / 1e6:.1f} M parameters x 4 B{over}"))
    states = int(trained * slots) // shards
    parts.append(Part("student: optimizer", states, f"{trained / 1e6:.1f} M trained x {slots:.3g} B{over}"))
    return [_on_host(part, "offload_student") for part in parts] if plan.sharding.offload_student else parts


def _on_host(part: Part, setting: str) -> Part:
    return Part(part.name, 0, f"in host memory ({setting})")


def _gradients(plan: RunPlan, student: ModelPasses) -> Part:
    count, width = trained_parameters(plan, student), _trained_width(plan)
    buckets = 2 if _replicated(plan) else 1
    shown = f"{count / 1e6:.1f} M trained x {width} B{_over(plan)}" + (
        ", and the buckets of DDP" if buckets > 1 else ""
    )
    part = Part("student: gradients", buckets * count * width // plan.processes.shards, shown)
    return _on_host(part, "offload_student") if plan.sharding.offload_student else part


def _teachers(plan: RunPlan) -> list[Part]:
    """Return the weights of all frozen models; teachers that share an object are loaded once."""
    parts, known = list[Part](), {"current"} | ({"initial"} if plan.adapter is not None else set())
    for label, teacher in frozen_models(plan).items():
        own = teacher.memory(plan.processes.shards)
        if isinstance(teacher, StudentTeacher) and teacher.version not in known:
            known.add(teacher.version)
            parts.append(_version(plan, f"{label}: {teacher.version} weights"))
        elif plan.shares_weights(teacher):
            parts.append(Part(label, 0, "shares the weights of the student"))
        elif own is None:
            parts.append(Part(label, 0, f"{UNKNOWN}: {type(teacher).__name__} does not give its memory"))
        else:
            made = [Part(f"{label}: {name}", size, formula) for name, (size, formula) in own.items()]
            parts += [_on_host(p, "offload_teachers") for p in made] if plan.sharding.offload_teachers else made
    return parts


def _version(plan: RunPlan, name: str) -> Part:
    """Return the copy of the student's weights, or of those of its adapter, that a teacher holds."""
    count, width = trained_parameters(plan, student_passes(plan)), _trained_width(plan)
    return Part(
        name, count * width // plan.processes.shards, f"{count / 1e6:.1f} M parameters x {width} B{_over(plan)}"
    )


def frozen_models(plan: RunPlan) -> dict[str, Teacher]:
    """Return the models of teachers, and base model, by their labels; an object that has several names occurs once."""
    labels: dict[int, tuple[Teacher, list[str]]] = {}
    for name, model in chain.from_iterable(teacher.models(name) for name, teacher in plan.teachers.items()):
        labels.setdefault(id(model), (model, []))[1].append(name)
    frozen = {f"teacher {', '.join(names)}": teacher for teacher, names in labels.values()}
    if plan.base is not None and "model.base" in plan.frozen_models and id(plan.base) not in labels:
        frozen["base model"] = plan.base
    return frozen


def _runtime(plan: RunPlan, *, gpu: bool) -> list[Part]:
    if not gpu:
        size, background = checkpoint_bytes(plan) // plan.processes.shards, plan.processes.background_checkpoints
        return [Part("checkpoint: copy", size, "written in the background")] * background
    parts = [Part("CUDA", CUDA, "assumed: context, kernels, workspaces")]
    return parts + [Part("NCCL", NCCL, "assumed: buffers")] * (plan.processes.world_size > 1)


def _passing(parts: list[Part], *, gpu: bool) -> list[Part]:
    """Return the parts of a pass, and on a GPU the memory that the allocator loses."""
    lost = int(FRAGMENTATION * sum(part.size for part in parts))
    return (
        [*parts, Part("fragmentation", lost, f"assumed: {FRAGMENTATION:.0%} of the parts of the pass")]
        if gpu
        else parts
    )


def _engine(plan: RunPlan, student: ModelPasses, gpu: int | None) -> list[Part]:
    data, config = plan.data, student.config
    if not data.samples:
        return []
    own = data.engine.memory(
        count_parameters(config),
        cache_per_token(config),
        rows_of_process(plan),
        data.longest_trajectory,
        **({"gpu": gpu} if gpu else {}),
    )
    return [Part(f"rollouts: {name}", size, formula) for name, (size, formula) in own.items()]


def _sleeping(plan: RunPlan, *, gpu: bool) -> list[Part]:
    sleeps = gpu and plan.data.samples
    return [Part("rollouts: vLLM asleep", SLEEPING, "assumed: CUDA graphs and context")] if sleeps else []


def _sync(plan: RunPlan, student: ModelPasses) -> list[Part]:
    """Return the gathered tensor of the weight sync."""
    if plan.processes.shards == 1:
        return []
    size = student.head * dtype_size(plan.dtype)
    return [Part("weight sync: gathered tensor", size, f"{student.head / 1e6:.1f} M parameters of the largest")]


def _scoring(plan: RunPlan, student: ModelPasses) -> dict[str, list[Part]]:
    """Return the passes of each model that scores."""
    found = {"student": scoring_parts(student, plan.budgets.chunk_logits)} if plan.scores_student_first else {}
    for label, teacher in frozen_models(plan).items():
        if isinstance(teacher, StudentTeacher):
            row = plan.longest_row(teacher)
            own = replace(student, tokens=max(teacher.token_budget, row), row=row)
            found[label] = scoring_parts(own, plan.budgets.chunk_logits)
        elif isinstance(teacher, HFTeacher) and not plan.shares_weights(teacher):
            passes = teacher_passes(plan, teacher)
            found[label] = scoring_parts(passes, teacher.chunk_logits)
            if plan.sharding.offload_teachers and not plan.processes.sharded:
                size = (passes.counts[1] + passes.counts[0]) * dtype_size(teacher.dtype)
                found[label].append(Part("teacher: copied weights", size, "one layer, and all outside of layers"))
    return found or {"": []}


def teacher_passes(plan: RunPlan, teacher: HFTeacher) -> ModelPasses:
    """Return a teacher, and how it computes."""
    return ModelPasses(
        config=load_config(teacher.path, "model.teachers"),
        dtype=teacher.dtype,
        autocast="bfloat16" if plan.processes.precision == "bf16-mixed" and teacher.dtype == "float32" else None,
        param_dtype=(plan.sharding.param_dtype or teacher.dtype) if plan.processes.sharded else None,
        tokens=max(teacher.token_budget, plan.longest_row(teacher)),
        row=plan.longest_row(teacher),
        gpu=plan.processes.device.type == "cuda",
    )


def _loading(plan: RunPlan, student: ModelPasses, *, gpu: bool) -> dict[str, list[Part]]:
    """Return the parts while models are loaded, teachers first: of a sharded model, a unit is whole on the device."""
    runtime, earlier = _runtime(plan, gpu=gpu), list[Part]()
    sharded, moments = plan.processes.shards > 1, dict[str, list[Part]]()
    for label, teacher in frozen_models(plan).items():
        own = [part for part in _teachers(plan) if part.name.startswith(label)]
        if isinstance(teacher, HFTeacher) and sharded and not plan.shares_weights(teacher):
            moments[label] = [*runtime, *earlier, *own, _unit(label, teacher_passes(plan, teacher))]
        earlier += own
    unit = [_unit("student", student)] if sharded else []
    return moments | {"the student": [*runtime, *earlier, *_student(plan, student)[:-1], *unit]}


def _unit(label: str, model: ModelPasses) -> Part:
    """Return the largest part of a model that is on the device before it is sharded: a layer, or all outside layers."""
    size = max(model.counts) * dtype_size(model.dtype)
    return Part("loading: whole layer or embeddings", size, f"{label}, before it is sharded")


def _worst(name: str, moments: dict[str, list[Part]]) -> Phase:
    """Return a phase at the moment with the highest peak."""
    moment = max(moments, key=lambda label: sum(part.size for part in moments[label]))
    return Phase(name, moment, tuple(moments[moment]))


def _replicated(plan: RunPlan) -> bool:
    return plan.processes.world_size > 1 and plan.processes.shards == 1


def _over(plan: RunPlan) -> str:
    return f" / {plan.processes.shards} processes" if plan.processes.shards > 1 else ""

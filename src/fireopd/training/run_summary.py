"""Summary of a run: one row per part for `fireopd check`, one line for the start of `fireopd fit`."""

import torch

from fireopd.models.attention import describe_attention
from fireopd.models.kernels import describe_kernels
from fireopd.models.loading import load_config
from fireopd.models.model_size import count_parameters
from fireopd.teachers import HFTeacher, Teacher
from fireopd.training.memory_estimate import available
from fireopd.training.memory_phases import GIB, largest, memory_phases
from fireopd.training.run_plan import RunPlan

__all__ = ["summary_line", "summary_rows"]


def summary_rows(plan: RunPlan) -> dict[str, str]:
    """Return the parts of a run by name, without a look at the models."""
    processes = plan.processes
    return {
        "student": plan.student if plan.adapter is None else f"{plan.student} with {plan.adapter}",
        "teachers": ", ".join(f"{name} = {teacher}" for name, teacher in plan.teachers.items()) or "recorded",
        "method": " · ".join(str(part) for part in plan.method.strategies.values()),
        "rollouts" if plan.data.recorded else "engine": str(plan.data.recorded or plan.data.engine),
        **({} if plan.data.recorded else {"plan": str(plan.data.rollout_plan)}),
        "prompts": f"{len(plan.data.training_prompts)} for training, {len(plan.data.validation_prompts)} held out",
        "a step": _batch(plan),
        "steps": _steps(plan),
        "processes": f"{processes.world_size} ({processes.strategy}, {processes.device.type})",
        "kernels": _computation(plan),
    }


def summary_line(plan: RunPlan) -> str:
    """Return one line on a checked run: models, method, size of a step, memory of a process.

    The random state of the run stays as it is. What cannot be determined is reported as not known.
    """
    parts = [
        f"Student {plan.student} ({_size(plan.student, 'model.student')})",
        *([] if plan.adapter is None else [str(plan.adapter)]),
        _supervision(plan),
        *map(str, plan.method.strategies.values()),
        f"{_batch(plan)} a step",
        f"steps: {_steps(plan)}",
        _computation(plan),
        _memory(plan),
    ]
    return " · ".join(parts)


def _supervision(plan: RunPlan) -> str:
    if plan.data.recorded is not None:
        return f"recorded rollouts: {plan.data.recorded}"
    return f"teachers {', '.join(f'{name} = {_teacher(name, own)}' for name, own in plan.teachers.items())}"


def _computation(plan: RunPlan) -> str:
    own = plan.budgets
    parts = [describe_kernels(own.kernels), describe_attention(own.attention, plan.student, "model.student")]
    return ", ".join([*parts, *["compiled decoder layers"] * own.compiled])


def _batch(plan: RunPlan) -> str:
    if plan.data.recorded is not None:
        return f"at most {plan.data.trajectories} trajectories of at most {plan.data.longest_trajectory} tokens"
    longest = plan.data.engine.max_response_length
    return f"{plan.data.trajectories} trajectories of at most {longest} tokens after the prompt"


def _steps(plan: RunPlan) -> str:
    return "until it is stopped" if plan.steps is None else str(plan.steps)


def _teacher(name: str, teacher: Teacher) -> str:
    if not isinstance(teacher, HFTeacher):
        return type(teacher).__name__
    return f"{teacher.path} ({_size(teacher.path, f'model.teachers.{name}.path')})"


def _size(name: str, key: str) -> str:
    config = load_config(name, key)
    try:
        with torch.random.fork_rng(devices=[]):
            count = count_parameters(config)
    except Exception:  # as below
        return "size not known"
    return f"{count / 1e9:.1f} B parameters" if count >= 1e9 else f"{count / 1e6:.1f} M parameters"


def _memory(plan: RunPlan) -> str:
    device = plan.processes.device
    try:
        with torch.random.fork_rng(devices=[]):
            need = largest(memory_phases(plan, available(device))).total / GIB
        limit = available(device) / GIB
        return f"about {need:.1f} of {limit:.1f} GiB ({device.type}) a process"
    except Exception:  # of an architecture that cannot be measured: a run does not stop for a line of information
        return "memory not known"

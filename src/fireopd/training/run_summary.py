"""What a run will be, in words: line by line for `fireopd check`, in one line for the beginning of a run."""

from typing import TYPE_CHECKING

import torch

from fireopd.models.loading import load_config
from fireopd.teachers import HFTeacher, Teacher
from fireopd.training import memory_estimate
from fireopd.training.data import RolloutDataModule

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

GIB = 2**30


def outline(module: "FiReOPDModule", data: RolloutDataModule) -> dict[str, str]:
    """Return what will run, part by part; nothing but the prompts has to be there."""
    trainer = module.trainer
    return {
        "student": module.student_name,
        "teachers": ", ".join(f"{name} = {teacher}" for name, teacher in module.teachers.items()),
        "method": " · ".join(str(part) for part in module.method.strategies.values()),
        "engine": str(data.engine),
        "prompts": f"{len(data.training_prompts)} for training, {len(data.validation_prompts)} held out",
        "a step": _step(data),
        "steps": _steps(module, data),
        "processes": f"{trainer.world_size} ({type(trainer.strategy).__name__}, {trainer.strategy.root_device.type})",
    }


def announcement(module: "FiReOPDModule", data: RolloutDataModule) -> str:
    """Return one line on a run that has been checked: models, method, size of a step, memory of a process.

    No random number is drawn from the run's own generators, and what cannot be measured is said to be not known.
    """
    parts = [
        f"Student {module.student_name} ({_size(module.student_name, 'model.student')})",
        f"teachers {', '.join(f'{name} = {_teacher(name, own)}' for name, own in module.teachers.items())}",
        *map(str, module.method.strategies.values()),
        f"{_step(data)} a step",
        f"steps: {_steps(module, data)}",
        _memory(module, data),
    ]
    return " · ".join(parts)


def _step(data: RolloutDataModule) -> str:
    rows, longest = data.batch_size * data.responses_per_prompt, data.engine.max_response_length
    return f"{rows} trajectories of at most {longest} tokens after the prompt"


def _steps(module: "FiReOPDModule", data: RolloutDataModule) -> str:
    trainer = module.trainer
    steps = data.prompts_per_epoch // data.batch_size * (trainer.max_epochs or 1)
    steps = min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps
    return str(steps) if steps >= 0 else "until it is stopped"


def _teacher(name: str, teacher: Teacher) -> str:
    if not isinstance(teacher, HFTeacher):
        return type(teacher).__name__
    return f"{teacher.path} ({_size(teacher.path, f'model.teachers.{name}.path')})"


def _size(name: str, key: str) -> str:
    config = load_config(name, key)
    try:
        with torch.random.fork_rng(devices=[]):
            count = memory_estimate.count_parameters(config)
    except Exception:  # as below
        return "size not known"
    return f"{count / 1e9:.1f} B parameters" if count >= 1e9 else f"{count / 1e6:.1f} M parameters"


def _memory(module: "FiReOPDModule", data: RolloutDataModule) -> str:
    device = module.trainer.strategy.root_device
    try:
        with torch.random.fork_rng(devices=[]):
            need = sum(part.size for part in memory_estimate.estimate(module, data)) / GIB
        return f"about {need:.1f} of {memory_estimate.available(device) / GIB:.1f} GiB ({device.type}) a process"
    except Exception:  # of an architecture that cannot be measured: a run does not stop for a line of information
        return "memory not known"

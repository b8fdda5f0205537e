"""Checks of a resume: the run is that of the checkpoint, apart from changes that are allowed. No model is loaded."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fireopd.distributed import sharded_checkpoints
from fireopd.errors import UserError, raise_together
from fireopd.models.loading import load_config
from fireopd.models.model_size import without_memory
from fireopd.models.student_versions import average_name
from fireopd.teachers import EMAStudentTeacher
from fireopd.training.adapter_record import AdapterRecord
from fireopd.training.checkpoint_files import STUDENT, read_run
from fireopd.training.checkpoint_integrity import RUN
from fireopd.training.run_settings import Difference, differences
from fireopd.types import strategy_state

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["changed_settings", "check_resume", "optimizer_differs", "resume_problems"]

AVERAGES = "averages."
"""Prefix of the names of the moving averages of the student."""
ALLOW = "restore it, or add --resume_with_changes true to continue with the new value"
"""Remedy of a changed setting."""
RESTORE = "restore the files, or add --resume_with_changes true to continue with the new prompts"
"""Remedy of changed prompts."""
PROMPTS = ("seed_everything", "model.student", *(f"data.{name}" for name in ("prompts", "chat", "overlong", "engine")))
"""Beginnings of the keys of settings that change the prompts."""


def check_resume(path: Path, module: "FiReOPDModule", prompts: str | None = None) -> None:
    """Name all settings that differ from those in a checkpoint, and refuse a resume that would be another run.

    `fresh_optimizer` of the module is set if the checkpoint holds the state of an optimizer of another class.

    Args:
        path: path of the checkpoint, a file or a folder.
        module: module of the run.
        prompts: fingerprint of the run's training prompts; None to skip their comparison.

    Raises:
        UserError: with all problems, see `resume_problems`.
    """
    saved = read_run(path)
    raise_together(resume_problems(path, saved, module, prompts))
    module.fresh_optimizer = optimizer_differs(path, saved, module)
    if "settings" not in saved[RUN]:
        rank_zero_info("The checkpoint is of an earlier version and holds no settings to compare with")
    for change in changed_settings(saved, module):
        rank_zero_info(f"Changed setting: {change}{f' ({change.effect})' if change.effect else ''}")


def resume_problems(
    path: Path, saved: Mapping[str, Any], module: "FiReOPDModule", prompts: str | None = None
) -> list[UserError]:
    """Return all reasons why a run cannot resume from a checkpoint.

    Args:
        path: path of the checkpoint, a file or a folder.
        saved: its content, see `read_run`.
        module: module of the run; with `resume_with_changes`, only what cannot be loaded is a problem.
        prompts: fingerprint of the run's training prompts; None to skip their comparison.
    """
    if not module.resume_with_changes:
        refused = [change for change in changed_settings(saved, module) if not change.free]
        found = [UserError(change.key, change.now, f"{change.saved} in the checkpoint", ALLOW) for change in refused]
        keys = {change.key for change in refused}
        if "model.student" not in keys and saved[RUN]["student"] != module.student_name and not _settings(saved):
            problem = f"{saved[RUN]['student']} in the checkpoint"
            found.append(UserError("model.student", module.student_name, problem, ALLOW))
        found += [problem for problem in _adapter(saved, module) if problem.key not in keys]
        found += [problem for problem in _strategies(saved, module) if problem.key not in keys]
        found += _prompts(saved, prompts, keys)
        if not _settings(saved) and optimizer_differs(path, saved, module):
            found.append(_other_optimizer(module))
    else:
        found = []
    if "model.student" not in {problem.key for problem in found}:
        found += _shapes(path, saved, module)
    return found + _averages(path, saved, module)


def changed_settings(saved: Mapping[str, Any], module: "FiReOPDModule") -> list[Difference]:
    """Return the settings that differ from those in a checkpoint; none if either has no settings."""
    return differences(_settings(saved), module.settings) if module.settings and _settings(saved) else []


def _settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    settings = saved[RUN].get("settings")
    return settings if isinstance(settings, dict) else {}


def optimizer_differs(path: Path, saved: Mapping[str, Any], module: "FiReOPDModule") -> bool:
    """Return whether a checkpoint holds the state of an optimizer of another class, by its settings or their names."""
    if _settings(saved):
        return any(change.key == "model.optimizer" for change in changed_settings(saved, module))
    own = set(module.make_optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]) - {"params"}
    if path.is_dir():
        prefix = "optimizer_0.param_groups.0."
        names = sharded_checkpoints.read_metadata(path).state_dict_metadata
        theirs = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    else:
        theirs = {name for state in saved["optimizer_states"] for group in state["param_groups"] for name in group}
    return bool(theirs) and not own <= theirs


def _other_optimizer(module: "FiReOPDModule") -> UserError:
    name = type(module.make_optimizer([nn.Parameter(torch.zeros(1))])).__name__
    return UserError("model.optimizer", name, "the checkpoint holds the state of an optimizer of another class", ALLOW)


def _strategies(saved: Mapping[str, Any], module: "FiReOPDModule") -> Iterator[UserError]:
    """Yield the strategies whose state is not that of the checkpoint."""
    states, own = saved[RUN]["strategies"], strategy_state.state_of(module.method.strategies)
    for name, part in module.method.strategies.items():
        key, kind = f"model.{name}", type(part).__name__
        if name in states and name not in own:
            yield UserError(key, kind, "it has no state, and the checkpoint holds one", ALLOW)
        elif name in own and name not in states:
            yield UserError(key, kind, "it has a state, and the checkpoint holds none for it", ALLOW)
        elif name in own:
            try:
                strategy_state.load_state({name: copy.deepcopy(part)}, {name: states[name]})
            except Exception as error:  # of any strategy
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                yield UserError(key, kind, f"it cannot take its state in the checkpoint ({reason})", ALLOW)


def _prompts(saved: Mapping[str, Any], prompts: str | None, changed: set[str]) -> Iterator[UserError]:
    """Yield the difference of the prompts to those of the checkpoint, unless a changed setting explains it."""
    explained = any(key.startswith(PROMPTS) for key in changed)
    if prompts is not None and not explained and saved[RUN].get("prompts", prompts) != prompts:
        yield UserError("data.prompts", "training prompts", "their content is not that of the checkpoint", RESTORE)


def _adapter(saved: Mapping[str, Any], module: "FiReOPDModule") -> Iterator[UserError]:
    """Yield the difference of the adapter to that of the checkpoint; with settings, these are compared instead."""
    record = AdapterRecord.read(saved[RUN])
    theirs = None if record is None else (record.name, record.settings)
    own = None if module.adapter is None else (type(module.adapter).__name__, module.adapter.settings)
    if theirs != own and not _settings(saved):
        shown = [None if value is None else f"{value[0]}({value[1]})" for value in (own, theirs)]
        yield UserError("model.adapter", shown[0], f"{shown[1]} in the checkpoint", ALLOW)


def _tensors(path: Path, saved: Mapping[str, Any]) -> dict[str, torch.Size | None]:
    """Return the shapes of the tensors of a checkpoint."""
    if not path.is_dir():
        return {name: value.shape for name, value in saved["state_dict"].items()}
    held = sharded_checkpoints.read_metadata(path).state_dict_metadata
    return {name.removeprefix("state_dict."): getattr(value, "size", None) for name, value in held.items()}


def _averages(path: Path, saved: Mapping[str, Any], module: "FiReOPDModule") -> list[UserError]:
    """Return the problem that the moving averages of the student are not those of the checkpoint."""
    names = {name.split(".")[1] for name in _tensors(path, saved) if name.startswith(AVERAGES)}
    models = [model for name, teacher in module.teachers.items() for _, model in teacher.models(name)]
    own = {average_name(model.decay) for model in models if isinstance(model, EMAStudentTeacher)}
    if names == own:
        return []
    ours, theirs = (", ".join(sorted(found)).replace("_", ".") or "none" for found in (own, names))
    problem = f"moving averages of the student with decay {theirs} in the checkpoint"
    remedy = "restore the decay of EMAStudentTeacher, or start another run from the exported student"
    return [UserError("model.teachers", f"decay {ours}", problem, remedy)]


def _shapes(path: Path, saved: Mapping[str, Any], module: "FiReOPDModule") -> list[UserError]:
    """Return the problem that the student's tensors are not those of the checkpoint."""
    theirs = _tensors(path, saved)
    try:
        config = load_config(module.student_name, "model.student")
        if module.adapter is None:
            own = {name: value.shape for name, value in without_memory(config).state_dict().items()}
        else:
            own = module.adapter.shapes(config)
    except Exception:  # what keeps a model from being made is reported when it is loaded
        return []
    theirs = {name.removeprefix(STUDENT): shape for name, shape in theirs.items() if name.startswith(STUDENT)}
    wrong = next((name for name in dict.fromkeys((*own, *theirs)) if own.get(name) != theirs.get(name)), None)
    if wrong is None:
        return []
    shapes = [f"{list(shape)}" if shape is not None else "missing" for shape in (theirs.get(wrong), own.get(wrong))]
    problem = f"its tensors are not those of the checkpoint ({wrong}: {shapes[0]} in the checkpoint, {shapes[1]} now)"
    remedy = f"resume with the student {saved[RUN]['student']}, or start another run from the exported student"
    return [UserError("model.student", module.student_name, problem, remedy)]

"""Part of a checkpoint that the module writes, and its restoration by a resumed run."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fireopd.plans import RolloutPlan
from fireopd.training.adapter_record import AdapterRecord
from fireopd.training.checkpoint_integrity import RUN
from fireopd.training.loop_progress import rewind_loops
from fireopd.training.resume_checks import changed_settings
from fireopd.training.step_loop import validation_state
from fireopd.types import strategy_state

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["apply_optimizer_settings", "restore", "run_state"]

OPTIMIZER = ("model.optimizer", "model.scheduler")
"""Keys of the settings that `apply_optimizer_settings` applies."""


SETTINGS = {name: f"model.{name}" for name in ("trajectory_filter", "token_weighter", "objective")}
SETTINGS |= {"plan": RolloutPlan.setting}
"""Setting of each strategy by its name in checkpoints."""


def _strategies(module: "FiReOPDModule") -> dict[str, object]:
    """Return all that may have a state: filter, weighter, objective and rollout plan."""
    return {**module.method.strategies, "plan": module.data.planning.plan}


def run_state(module: "FiReOPDModule") -> dict[str, Any]:
    """Return counters, state of strategies, student, adapter, fingerprint of the prompts, and settings."""
    adapter = AdapterRecord.of(module)
    return {
        "policy_version": module.policy_version,
        "skipped_steps": module.skipped_steps,
        "strategies": strategy_state.state_of(_strategies(module)),
        "student": module.student_name,
        "adapter": None if adapter is None else asdict(adapter),
        "prompts": module.data.fingerprint,
        "settings": module.settings,
        "validation": validation_state(module.trainer),
    }


def restore(module: "FiReOPDModule", checkpoint: dict[str, Any]) -> None:
    """Restore counters and the state of strategies, and prepare the rest of the checkpoint for the trainer, in place.

    With `resume_with_changes`, an optimizer, schedule or strategy of another class starts anew.

    Raises:
        UserError: if the checkpoint holds an adapter, and the student's weights are not those below it.
    """
    rewind_loops(checkpoint)
    saved = checkpoint[RUN]
    record = AdapterRecord.read(saved)
    if record is not None:
        record.check_base(module.student_name, module.base_fingerprint)
    module.policy_version, module.skipped_steps = saved["policy_version"], saved["skipped_steps"]
    changed = {change.key for change in changed_settings(checkpoint, module)}
    own = _strategies(module)
    kept = {name: state for name, state in saved["strategies"].items() if SETTINGS.get(name) not in changed}
    if module.resume_with_changes:
        stateful = strategy_state.state_of(own)
        kept = {name: state for name, state in kept.items() if name in stateful}
    strategy_state.load_state(own, kept)
    if module.fresh_optimizer:
        checkpoint["optimizer_states"] = []
    if "model.scheduler" in changed:
        checkpoint["lr_schedulers"] = []
    module.optimizer_changed = module.fresh_optimizer or any(key.startswith(OPTIMIZER) for key in changed)


def apply_optimizer_settings(module: "FiReOPDModule") -> None:
    """Give the restored optimizer the settings of this run, and the schedule its place: as if they had always applied.

    The schedule is computed by its steps so far, on a parameter of one number.
    """
    optimizer: Any = module.optimizers(use_pl_optimizer=False)
    scheduler: Any = module.lr_schedulers()
    like = module.make_optimizer([nn.Parameter(torch.zeros(1))])
    schedule = module.make_scheduler(like) if module.make_scheduler is not None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a schedule that is stepped beyond its end
        for _ in range(module.policy_version if schedule is not None else 0):
            like.step()
            schedule.step()  # type: ignore[union-attr]
    settings: Mapping[str, Any] = {name: value for name, value in like.param_groups[0].items() if name != "params"}
    for group in optimizer.param_groups:
        group.update(settings)
    if schedule is not None:
        scheduler.load_state_dict(schedule.state_dict())
    rank_zero_info(f"Learning rate of the next step: {settings['lr']:g}")

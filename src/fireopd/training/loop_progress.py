"""Lightning's loop counters in a checkpoint, set to those of the last complete step.

Lightning counts a batch before its step. A run that resumes after an interrupt in between would log all further steps
under the wrong number, and skip or move validations.
"""

from typing import Any

__all__ = ["rewind_loops"]


def rewind_loops(checkpoint: dict[str, Any]) -> None:
    """Set the loop counters of a checkpoint, in place, to the end of the last complete step.

    A validation that is due is repeated from its start. Counters of checkpoints that were written in
    `on_validation_end` or between epochs stay as they are.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop")
    if loops is None:
        return
    epoch = loops["epoch_progress"]["current"]
    if epoch["processed"] == epoch["started"]:
        return
    validation = checkpoint["fireopd"].get("validation") or _inferred(loops)
    loops["epoch_loop.state_dict"]["validation"] = validation  # for StepLoop
    if validation in ("none", "done"):
        _after_validation(loops)
    if validation == "none":
        _end_of_step(loops)
    elif validation == "due":
        _before_validation(loops)


def _end_of_step(loops: dict[str, Any]) -> None:
    """Set the counters to those of `on_train_batch_end`, from which Lightning takes the next step."""
    batches = loops["epoch_loop.batch_progress"]
    current = batches["current"]
    batches["is_last_batch"] = batches["is_last_batch"] and current["ready"] == current["processed"]
    for progress in (batches["total"], current):
        done = progress["processed"]
        progress.update(ready=done, started=done, processed=done, completed=done - 1)
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = batches["total"]["processed"] - 1


def _after_validation(loops: dict[str, Any]) -> None:
    """Set the counters of the validation to those of a complete one; a repeated one leaves a batch that was started."""
    for progress in (loops["epoch_loop.val_loop.batch_progress"][name] for name in ("total", "current")):
        done = progress["completed"]
        progress.update(ready=done, started=done, processed=done)


def _before_validation(loops: dict[str, Any]) -> None:
    """Set the counters of the validation so that Lightning repeats it: one batch is started and not processed."""
    validation = loops["epoch_loop.val_loop.batch_progress"]
    for progress, done in ((validation["total"], validation["total"]["completed"]), (validation["current"], 0)):
        progress.update(ready=done + 1, started=done + 1, processed=done, completed=done)


def _inferred(loops: dict[str, Any]) -> str | None:
    """Return the state of the validation in a checkpoint of an earlier version, which does not hold it."""
    batches, stepped = loops["epoch_loop.batch_progress"], loops["epoch_loop.state_dict"]["_batches_that_stepped"]
    counts, validation = batches["total"], loops["epoch_loop.val_loop.batch_progress"]
    if stepped >= counts["completed"] == counts["ready"] or counts["ready"] > counts["processed"]:
        return "none"  # in the rollout or the step of the next batch
    complete = validation["is_last_batch"] and validation["current"]["completed"] == validation["current"]["ready"]
    return "due" if counts["completed"] == counts["ready"] and not complete else None

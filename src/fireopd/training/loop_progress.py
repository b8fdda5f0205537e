"""Lightning's loop counters in a checkpoint, rewound to the last complete step.

Lightning counts a batch before its step. A run that resumes after an interrupt in between would log all further steps
under the wrong number, and skip or move validations.
"""

from typing import Any

__all__ = ["rewind_loops"]


def rewind_loops(checkpoint: dict[str, Any]) -> None:
    """Set the loop counters of a checkpoint, in place, to the end of the last step if a later batch was cut short.

    Counters of checkpoints written in `on_train_batch_end`, in `on_validation_end` or between epochs stay as they are.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop")
    if loops is None:
        return
    epoch = loops["epoch_progress"]["current"]
    if epoch["processed"] == epoch["started"]:
        return
    batches, state = loops["epoch_loop.batch_progress"], loops["epoch_loop.state_dict"]
    counts = batches["total"]
    in_rollout = state["_batches_that_stepped"] >= counts["completed"] == counts["ready"]
    if in_rollout or counts["ready"] > counts["processed"]:
        # In the rollout or the step of the next batch. These are the counters of `on_train_batch_end`.
        for progress in (counts, batches["current"]):
            done = progress["completed"]
            progress.update(ready=done, started=done, processed=done, completed=done - 1)
        batches["is_last_batch"] = False
        state["_batches_that_stepped"] -= 1
    elif counts["completed"] == counts["ready"] and not _is_complete(loops["epoch_loop.val_loop.batch_progress"]):
        # In a validation. Lightning repeats it if it finds a batch that was started and not processed.
        validation = loops["epoch_loop.val_loop.batch_progress"]
        for progress, done in ((validation["total"], validation["total"]["completed"]), (validation["current"], 0)):
            progress.update(ready=done + 1, started=done + 1, processed=done, completed=done)


def _is_complete(validation: dict[str, Any]) -> bool:
    counts = validation["current"]
    return bool(validation["is_last_batch"]) and counts["completed"] == counts["ready"]

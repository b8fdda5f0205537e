"""Checkpoints and curves of runs that were stopped."""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireopd.training import checkpoint_files

EVERY_STEP = ["--trainer.callbacks=[{class_path: RunCheckpoint, init_args: {every_n_train_steps: 1}}]"]
EVERY_STEP += ["--trainer.limit_val_batches=0"]
BACKGROUND = [option.replace("steps: 1}", "steps: 1, background: true}") for option in EVERY_STEP]


def student(path):
    return checkpoint_files.read_student(path)[1]


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def curve(folder, tag):
    """Return the values of a scalar by step, over all starts of a run; a later start has the last word."""
    values = {}
    for version in sorted(folder.glob("version_*")):
        events = EventAccumulator(str(version))
        events.Reload()
        for event in events.Scalars(tag) if tag in events.Tags()["scalars"] else []:
            values[event.step] = event.value
    return values


def assert_same(run, whole):
    (expected,) = whole.checkpoints()
    ours, theirs = student(checkpoint_files.last_checkpoint(run.folder)), student(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), "bit by bit"
    for tag in ("train/loss", "train/grad_norm", "fire/keep_ratio", "train/reverse_kl"):
        steps, reference = curve(run.folder, tag), curve(whole.folder, tag)
        assert len(reference) == 8
        # What a killed run had not yet written to disk is missing from its curves, never different.
        assert {step: reference[step] for step in steps} == steps, tag

"""Callbacks of a training run: curves, checkpoints, recordings, warnings and summaries."""

from fireopd.callbacks.curves import Curves
from fireopd.callbacks.health_watch import HealthWatch
from fireopd.callbacks.progress import Progress
from fireopd.callbacks.rollout_recorder import RolloutRecorder
from fireopd.callbacks.run_checkpoint import RunCheckpoint
from fireopd.callbacks.summary import Summary
from fireopd.callbacks.trajectory_display import Trajectories
from fireopd.training.weight_sync import WeightSync

__all__ = [
    "Curves",
    "HealthWatch",
    "Progress",
    "RolloutRecorder",
    "RunCheckpoint",
    "Summary",
    "Trajectories",
    "WeightSync",
]

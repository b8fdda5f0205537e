"""Loader of recorded rollouts, in a seeded order that a resumed run continues."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from fireopd.training.recorded_rollouts import Recording
from fireopd.training.rollout_loader import RolloutLoader, RolloutSettings
from fireopd.types import RolloutBatch

__all__ = ["RecordedLoader", "current_rollouts"]


class RecordedLoader(RolloutLoader):
    """Iterable over this process's recorded rollouts, numbered from 0 over all epochs.

    Each epoch is a permutation of all groups by the seed of the run. The groups of a batch are in recorded order, so
    that a file of one batch gives the batch of the run that recorded it; processes take consecutive parts of it.
    """

    def __init__(self, data: RolloutSettings, recording: Recording) -> None:
        """Store the settings."""
        super().__init__(data, None, recording.prompts, training=True)
        self.recording = recording

    def batch_groups(self, number: int) -> list[int]:
        """Return the places of all groups of a batch, of all processes."""
        epoch, place = divmod(number, len(self))
        generator = torch.Generator().manual_seed(self.data.seed + epoch)
        order = torch.randperm(len(self.prompts), generator=generator).tolist()
        return sorted(order[place * self.size : (place + 1) * self.size])

    def _train(self) -> Iterator[RolloutBatch]:
        end = (self.next_number // len(self) + 1) * len(self)
        while self.next_number < end:
            groups = torch.tensor(self.batch_groups(self.next_number)).tensor_split(self.ranks)[self.rank].tolist()
            self.current = self.together(partial(self.recording.rollouts, groups, self.next_number))
            self.next_number += 1
            yield self.current


def current_rollouts(rollouts: RolloutBatch, version: int, allowed: int) -> tuple[RolloutBatch, float]:
    """Return rollouts with the policy version that schedules see and the staleness of each row, and its mean.

    Recorded rollouts may be of any version: they take that of the student. Their staleness is the difference to the
    recorded versions, negative for recordings of a later student.

    Args:
        rollouts: B trajectories.
        version: optimizer steps of the student.
        allowed: largest staleness of sampled rollouts.

    Raises:
        RuntimeError: if sampled rollouts are older, or newer than the student.
    """
    if rollouts.recorded is not None:
        ages = version - rollouts.recorded.versions
        mean = ages.double().mean().item() if len(ages) else 0.0
        return replace(rollouts, policy_version=version, staleness=ages), mean
    staleness = version - rollouts.policy_version
    if not 0 <= staleness <= allowed:
        sampler = f"sampled by version {rollouts.policy_version} of the student"
        raise RuntimeError(f"stale rollouts: {sampler}, which is at version {version}")
    return replace(rollouts, staleness=torch.full_like(rollouts.groups, staleness)), float(staleness)

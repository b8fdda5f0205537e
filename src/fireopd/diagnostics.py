"""The numbers of a training step that go into TensorBoard, from the global batch and its targets."""

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.targets import Targets
from fireopd.types import ScoredBatch


def step_diagnostics(batch: ScoredBatch, targets: Targets) -> dict[str, float]:
    """Return scalars by TensorBoard tag: what is kept, how weights are spread, how far teachers are away.

    What the student is needed for is about the trajectories that it has read.
    """
    values: dict[str, Tensor] = {
        "fire/keep_ratio": targets.keep.float().mean(),
        "rollout/length": batch.lengths.float().mean(),
        "rollout/finished": batch.finished.float().mean(),
        **_weights(targets),
    }
    if batch.student_mask.any():
        values["rollout/sampler_gap"] = _sampler_gap(batch)
    for name, length in (("kept", batch.lengths[targets.keep]), ("dropped", batch.lengths[~targets.keep])):
        if len(length):
            values[f"rollout/length_{name}"] = length.float().mean()
    for rows in batch.rows_of_each_teacher():
        teacher = batch.teachers[int(rows[0])]
        values[f"fire/keep_ratio/{teacher}"] = targets.keep[rows].float().mean()
        if "teacher_logprobs" in batch.signals and batch.student_mask[rows].any():
            gap, mask = batch.student_logprobs[rows] - batch.teacher_logprobs[rows], batch.student_mask[rows]
            read = len(rows) if batch.student_read is None else batch.student_read[rows].sum().clamp(min=1)
            values[f"kl/{teacher}"] = reductions.mean(gap, mask)
            # Of whole responses: per token, a student that learns to stop sooner seems to move away from its teacher.
            values[f"kl_response/{teacher}"] = reductions.total(gap, mask) / read
    if "teacher_logprobs" in batch.signals and batch.student_mask.any():
        gap = batch.student_logprobs - batch.teacher_logprobs
        values["train/reverse_kl"] = reductions.mean(gap, batch.student_mask)  # an estimate
    if "teacher_logprobs" in batch.signals and targets.keep.any():
        scores = reductions.row_mean(batch.teacher_logprobs, batch.response_mask)
        values["fire/threshold"] = scores[targets.keep].min()
    for name, mask in (("student", batch.student_mask), ("teacher", batch.response_mask)):
        if f"{name}_entropy" in batch.signals and mask.any():
            values[f"entropy/{name}"] = reductions.mean(batch.signals[f"{name}_entropy"], mask)
    if targets.coefficient is not None:
        values["fire/coefficient_mean"] = reductions.mean(targets.coefficient, targets.mask)
    if "rewards" in batch.signals:
        values["rollout/reward"] = batch.rewards.mean()
    return {name: value.item() for name, value in values.items()}


def speed(batch: ScoredBatch, seconds: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each part of the step, and response tokens a second, by TensorBoard tag."""
    parts = {f"time/{name}": value for name, value in seconds.items()}
    return parts | {"train/tokens_per_s": batch.lengths.sum().item() / sum(seconds.values())}


def effective_share(weight: Tensor, mask: Tensor) -> Tensor:
    """Return the effective sample size of float [N, L] weights as a share of the tokens of the mask, in [0, 1]."""
    squares = reductions.total(weight**2, mask) * mask.sum()
    return reductions.total(weight, mask) ** 2 / squares.clamp(min=1e-12)


def _weights(targets: Targets) -> dict[str, Tensor]:
    return {
        "fire/weight_mean": reductions.mean(targets.weight, targets.mask),
        "fire/weight_max": targets.weight.max(),
        "fire/weight_ess": effective_share(targets.weight, targets.mask),
        "fire/importance_mean": reductions.mean(targets.importance, targets.mask),
    }


def _sampler_gap(batch: ScoredBatch) -> Tensor:
    gap = (batch.student_logprobs - batch.sampling_logprobs).abs()
    return torch.where(batch.student_mask, gap, 0.0).max()

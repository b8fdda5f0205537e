"""The numbers of a training step that go into TensorBoard, from the global batch and its targets."""

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.targets import Targets
from fireopd.types import ScoredBatch


def step_diagnostics(batch: ScoredBatch, targets: Targets) -> dict[str, float]:
    """Return scalars by TensorBoard tag: what is kept, how weights are spread, how far teachers are away."""
    values: dict[str, Tensor] = {
        "fire/keep_ratio": targets.keep.float().mean(),
        "rollout/length": batch.lengths.float().mean(),
        "rollout/finished": batch.finished.float().mean(),
        "rollout/sampler_gap": _sampler_gap(batch),
        **_weights(targets),
    }
    for name, length in (("kept", batch.lengths[targets.keep]), ("dropped", batch.lengths[~targets.keep])):
        if len(length):
            values[f"rollout/length_{name}"] = length.float().mean()
    for rows in batch.rows_of_each_teacher():
        teacher = batch.teachers[int(rows[0])]
        values[f"fire/keep_ratio/{teacher}"] = targets.keep[rows].float().mean()
        if "teacher_logprobs" in batch.signals:
            gap = batch.student_logprobs[rows] - batch.teacher_logprobs[rows]
            values[f"kl/{teacher}"] = reductions.mean(gap, batch.response_mask[rows])
            # Of whole responses: per token, a student that learns to stop sooner seems to move away from its teacher.
            values[f"kl_response/{teacher}"] = reductions.total(gap, batch.response_mask[rows]) / len(rows)
    if "teacher_logprobs" in batch.signals and targets.keep.any():
        scores = reductions.row_mean(batch.teacher_logprobs, batch.response_mask)
        values["fire/threshold"] = scores[targets.keep].min()
    for name in ("student", "teacher"):
        if f"{name}_entropy" in batch.signals:
            values[f"entropy/{name}"] = reductions.mean(batch.signals[f"{name}_entropy"], batch.response_mask)
    if "rewards" in batch.signals:
        values["rollout/reward"] = batch.rewards.mean()
    return {name: value.item() for name, value in values.items()}


def reverse_kl(batch: ScoredBatch) -> float:
    """Return the mean of log student - log teacher over all response tokens, nats: an estimate of the reverse KL."""
    return reductions.mean(batch.student_logprobs - batch.teacher_logprobs, batch.response_mask).item()


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
    return torch.where(batch.response_mask, gap, 0.0).max()

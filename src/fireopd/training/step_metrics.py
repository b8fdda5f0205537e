"""The numbers of a training step that go into TensorBoard, from the global batch and its targets."""

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.types import ScoredBatch
from fireopd.types.targets import Targets

QUARTERS = ("quarter_1", "quarter_2", "quarter_3", "quarter_4")
"""The four parts of like length that each response is cut into, for the curves by position."""


def step_diagnostics(batch: ScoredBatch, targets: Targets) -> dict[str, float]:
    """Return scalars by TensorBoard tag: what is kept, how weights are spread, how far teachers are away.

    What the student is needed for is about the trajectories that it has read.
    """
    values: dict[str, Tensor] = {
        "fire/keep_ratio": targets.keep.float().mean(),
        "rollout/length": batch.lengths.float().mean(),
        "rollout/finished": batch.finished.float().mean(),
        **_weights(targets),
        **_kept_and_dropped(batch, targets),
        **_by_position(batch, targets),
    }
    if batch.student_mask.any():
        values["rollout/sampler_gap"] = _sampler_gap(batch)
    for rows in batch.rows_of_each_teacher():
        values |= _of_teacher(batch, targets, rows)
    if "teacher_logprobs" in batch.signals and batch.student_mask.any():
        values["train/reverse_kl"] = reductions.mean(_gap(batch), batch.student_mask)  # an estimate
    if "teacher_logprobs" in batch.signals and targets.keep.any():
        scores = reductions.row_mean(batch.teacher_logprobs, batch.response_mask)
        values["fire/threshold"] = scores[targets.keep].min()
    for model, (entropy, mask) in _entropies(batch).items():
        values[f"entropy/{model}"] = reductions.mean(entropy, mask)
    if targets.coefficient is not None:
        values["fire/coefficient_mean"] = reductions.mean(targets.coefficient, targets.mask)
    return {name: value.item() for name, value in values.items()}


def speed(batch: ScoredBatch, seconds: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each part of the step, and response tokens a second, by TensorBoard tag."""
    parts = {f"time/{name}": value for name, value in seconds.items()}
    return parts | {"train/tokens_per_s": batch.lengths.sum().item() / sum(seconds.values())}


def effective_share(weight: Tensor, mask: Tensor) -> Tensor:
    """Return the effective sample size of float [N, L] weights as a share of the tokens of the mask, in [0, 1]."""
    squares = reductions.total(weight**2, mask) * mask.sum()
    return reductions.total(weight, mask) ** 2 / squares.clamp(min=1e-12)


def quarters(mask: Tensor) -> Tensor:
    """Return int64 [N, L]: in which quarter of its response, 0 to 3, each token of bool [N, L] `mask` lies."""
    place = mask.cumsum(-1) - 1
    return (4 * place).div(mask.sum(-1, keepdim=True).clamp(min=1), rounding_mode="floor").clamp(min=0)


def _weights(targets: Targets) -> dict[str, Tensor]:
    return {
        "fire/weight_mean": reductions.mean(targets.weight, targets.mask),
        "fire/weight_max": targets.weight.max(),
        "fire/weight_ess": effective_share(targets.weight, targets.mask),
        "fire/importance_mean": reductions.mean(targets.importance, targets.mask),
    }


def _kept_and_dropped(batch: ScoredBatch, targets: Targets) -> dict[str, Tensor]:
    """Return mean lengths and rewards of what is kept and of what is dropped, where there is any."""
    measures = {"length": batch.lengths.float()}
    measures |= {"reward": batch.rewards} if "rewards" in batch.signals else {}
    values = {"rollout/reward": batch.rewards.mean()} if "rewards" in batch.signals else {}
    for name, rows in (("kept", targets.keep), ("dropped", ~targets.keep)):
        values |= {f"rollout/{m}_{name}": measure[rows].mean() for m, measure in measures.items() if rows.any()}
    return values


def _of_teacher(batch: ScoredBatch, targets: Targets, rows: Tensor) -> dict[str, Tensor]:
    """Return the curves of one teacher, whose rows these are."""
    teacher = batch.teachers[int(rows[0])]
    values = {
        f"fire/keep_ratio/{teacher}": targets.keep[rows].float().mean(),
        f"fire/weight_ess/{teacher}": effective_share(targets.weight[rows], targets.mask[rows]),
        f"rollout/length/{teacher}": batch.lengths[rows].float().mean(),
        f"rollout/finished/{teacher}": batch.finished[rows].float().mean(),
    }
    for model, (entropy, read) in _entropies(batch).items():
        values[f"entropy/{model}/{teacher}"] = reductions.mean(entropy[rows], read[rows])
    if "teacher_logprobs" in batch.signals and batch.student_mask[rows].any():
        gap, read = _gap(batch)[rows], batch.student_mask[rows]
        values[f"kl/{teacher}"] = reductions.mean(gap, read)
        # Of whole responses: per token, a student that learns to stop sooner seems to move away from its teacher.
        values[f"kl_response/{teacher}"] = reductions.total(gap, read) / read.any(-1).sum()
    return values


def _by_position(batch: ScoredBatch, targets: Targets) -> dict[str, Tensor]:
    """Return mean weight, reverse KL and entropies of each quarter of the responses, of the tokens that have them."""
    place, values = quarters(batch.response_mask), dict[str, Tensor]()
    measures = {f"entropy_{model}": entropy for model, entropy in _entropies(batch).items()}
    measures |= {"kl": (_gap(batch), batch.student_mask)} if "teacher_logprobs" in batch.signals else {}
    measures["weight"] = (targets.weight, targets.mask)
    for number, quarter in enumerate(QUARTERS):
        for name, (measure, mask) in measures.items():
            here = mask & (place == number)
            values |= {f"position/{quarter}/{name}": reductions.mean(measure, here)} if here.any() else {}
    return values


def _entropies(batch: ScoredBatch) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the entropies, float32 [N, L], by model, and which tokens have them, bool [N, L]."""
    masks = {"student": batch.student_mask, "teacher": batch.response_mask}
    found = {m: (batch.signals[f"{m}_entropy"], mask) for m, mask in masks.items() if f"{m}_entropy" in batch.signals}
    return {model: (entropy, mask) for model, (entropy, mask) in found.items() if mask.any()}


def _gap(batch: ScoredBatch) -> Tensor:
    return batch.student_logprobs - batch.teacher_logprobs


def _sampler_gap(batch: ScoredBatch) -> Tensor:
    gap = (batch.student_logprobs - batch.sampling_logprobs).abs()
    return torch.where(batch.student_mask, gap, 0.0).max()

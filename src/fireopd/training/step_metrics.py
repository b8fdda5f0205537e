"""Metrics of a training step, from the global batch and its targets."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fireopd import reductions
from fireopd.types import ScoredBatch, Source
from fireopd.types.targets import Targets

__all__ = ["QUARTERS", "effective_share", "quarters", "speed", "step_diagnostics", "step_metrics"]

QUARTERS = ("quarter_1", "quarter_2", "quarter_3", "quarter_4")
"""Names of the quarters of each response, for the curves by position."""


def step_diagnostics(batch: ScoredBatch, targets: Targets) -> dict[str, float]:
    """Return scalars by tag: kept trajectories, spread of the weights, divergence from the teachers.

    Metrics that need student signals are means over the trajectories that the student has scored, those of the
    divergence over the tokens that it sampled.
    """
    values: dict[str, Tensor] = {
        "fire/keep_ratio": targets.keep.float().mean(),
        "rollout/length": batch.lengths.float().mean(),
        "rollout/finished": batch.finished.float().mean(),
        **_weights(targets),
        **_kept_and_dropped(batch, targets),
        **_by_position(batch, targets),
    }
    if batch.sources is not None:
        of_teachers = (batch.tokens_by(Source.TEACHER) & batch.response_mask).float()
        values["rollout/teacher_share"] = reductions.mean(of_teachers, batch.response_mask)
    if batch.own_mask.any() and "sampling_logprobs" in batch.signals:
        values["rollout/recorded_gap" if batch.recorded else "rollout/sampler_gap"] = _sampler_gap(batch)
    for rows in batch.rows_of_each_teacher():
        values |= _of_teacher(batch, targets, rows)
    if "teacher_logprobs" in batch.signals and batch.own_mask.any():
        values["train/reverse_kl"] = reductions.mean(_gap(batch), batch.own_mask)  # an estimate
    if "teacher_logprobs" in batch.signals and targets.keep.any():
        scores = reductions.row_mean(batch.teacher_logprobs, batch.response_mask)
        values["fire/threshold"] = scores[targets.keep].min()
    for model, (entropy, mask) in _entropies(batch).items():
        values[f"entropy/{model}"] = reductions.mean(entropy, mask)
    if targets.coefficient is not None:
        values["fire/coefficient_mean"] = reductions.mean(targets.coefficient, targets.mask)
    return {name: value.item() for name, value in values.items()}


def step_metrics(
    batch: ScoredBatch, targets: Targets, steps: Sequence[Mapping[str, float]], seconds: dict[str, float]
) -> dict[str, float]:
    """Return all metrics of a step by tag: `step_diagnostics`, `speed`, and the means of its optimizer steps.

    Args:
        batch: N trajectories.
        targets: their targets.
        steps: loss and gradient norm of each optimizer step.
        seconds: seconds of each part of the step.
    """
    means = {name: sum(step[name] for step in steps) / len(steps) for name in (steps[0] if steps else ())}
    return means | step_diagnostics(batch, targets) | speed(batch, seconds)


def speed(batch: ScoredBatch, seconds: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each part of the step, and response tokens per second, by tag."""
    parts = {f"time/{name}": value for name, value in seconds.items()}
    return parts | {"train/tokens_per_s": batch.lengths.sum().item() / sum(seconds.values())}


def effective_share(weight: Tensor, mask: Tensor) -> Tensor:
    """Return the effective sample size of float [N, L] weights as a share of the tokens of the mask, in [0, 1]."""
    squares = reductions.total(weight**2, mask) * mask.sum()
    return reductions.total(weight, mask) ** 2 / squares.clamp(min=1e-12)


def quarters(mask: Tensor) -> Tensor:
    """Return the quarter of its response, 0 to 3, of each token of bool [N, L] `mask`, as int64 [N, L]."""
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
    """Return mean lengths and rewards of kept and of dropped trajectories, of each set that is not empty."""
    measures = {"length": batch.lengths.float()}
    measures |= {"reward": batch.rewards} if "rewards" in batch.signals else {}
    values = {"rollout/reward": batch.rewards.mean()} if "rewards" in batch.signals else {}
    for name, rows in (("kept", targets.keep), ("dropped", ~targets.keep)):
        values |= {f"rollout/{m}_{name}": measure[rows].mean() for m, measure in measures.items() if rows.any()}
    return values


def _of_teacher(batch: ScoredBatch, targets: Targets, rows: Tensor) -> dict[str, Tensor]:
    """Return the metrics of one teacher, over its rows."""
    teacher = batch.teachers[int(rows[0])]
    values = {
        f"fire/keep_ratio/{teacher}": targets.keep[rows].float().mean(),
        f"fire/weight_ess/{teacher}": effective_share(targets.weight[rows], targets.mask[rows]),
        f"rollout/length/{teacher}": batch.lengths[rows].float().mean(),
        f"rollout/finished/{teacher}": batch.finished[rows].float().mean(),
    }
    for model, (entropy, mask) in _entropies(batch).items():
        values[f"entropy/{model}/{teacher}"] = reductions.mean(entropy[rows], mask[rows])
    if "teacher_logprobs" in batch.signals and batch.own_mask[rows].any():
        gap, mask = _gap(batch)[rows], batch.own_mask[rows]
        values[f"kl/{teacher}"] = reductions.mean(gap, mask)
        # Per response, since the mean per token rises when a student learns to stop sooner.
        values[f"kl_response/{teacher}"] = reductions.total(gap, mask) / mask.any(-1).sum()
    return values


def _by_position(batch: ScoredBatch, targets: Targets) -> dict[str, Tensor]:
    """Return mean weight, reverse KL and entropies over each quarter of the responses."""
    place, values = quarters(batch.response_mask), dict[str, Tensor]()
    measures = {f"entropy_{model}": entropy for model, entropy in _entropies(batch).items()}
    measures |= {"kl": (_gap(batch), batch.own_mask)} if "teacher_logprobs" in batch.signals else {}
    measures["weight"] = (targets.weight, targets.mask)
    for number, quarter in enumerate(QUARTERS):
        for name, (measure, mask) in measures.items():
            here = mask & (place == number)
            values |= {f"position/{quarter}/{name}": reductions.mean(measure, here)} if here.any() else {}
    return values


def _entropies(batch: ScoredBatch) -> dict[str, tuple[Tensor, Tensor]]:
    """Return entropies, float32 [N, L], and the tokens that have them, bool [N, L], by model."""
    masks = {"student": batch.student_mask, "teacher": batch.response_mask}
    found = {m: (batch.signals[f"{m}_entropy"], mask) for m, mask in masks.items() if f"{m}_entropy" in batch.signals}
    return {model: (entropy, mask) for model, (entropy, mask) in found.items() if mask.any()}


def _gap(batch: ScoredBatch) -> Tensor:
    return batch.student_logprobs - batch.teacher_logprobs


def _sampler_gap(batch: ScoredBatch) -> Tensor:
    gap = (batch.student_logprobs - batch.sampling_logprobs).abs()
    return torch.where(batch.own_mask, gap, 0.0).max()

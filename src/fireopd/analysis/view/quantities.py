"""The numbers of a token that a page shows and colours by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.types import ScoredBatch
from fireopd.types.signals import OF_STUDENT, PER_TRAJECTORY
from fireopd.types.targets import Targets

OUTLIERS = 0.02
"""Share of the values at either end that have the full colour: a few extreme tokens would leave the rest pale."""


@dataclass(frozen=True)
class Kind:
    """A number that each token has."""

    label: str
    """How a person calls it."""
    meaning: str
    """What it says, with its unit."""
    centre: float = 0.0
    """The value without a colour: more is one colour, less another."""


KINDS = {
    "weight": Kind("weight", "token weight, 1 on average", 1.0),
    "advantage": Kind("advantage", "nats; positive raises the token's probability"),
    "coefficient": Kind("divergence coefficient", "by what the token's divergence is multiplied"),
    "log_ratio": Kind("log-ratio", "log teacher - log student, nats"),
    "teacher_logprobs": Kind("teacher log-prob", "of the token under the row's own teacher, nats"),
    "student_logprobs": Kind("student log-prob", "of the token before the update, nats"),
    "sampling_logprobs": Kind("sampling log-prob", "of the token when the engine sampled it, nats"),
    "base_logprobs": Kind("base log-prob", "of the token under the base model, nats"),
    "teacher_entropy": Kind("teacher entropy", "of the distribution before the token, nats"),
    "student_entropy": Kind("student entropy", "of the distribution that the token was drawn from, nats"),
    "importance": Kind("importance", "weight between sampler and student, capped", 1.0),
    "reverse_kl": Kind("reverse KL", "KL(student || teacher) over the whole vocabulary, nats"),
    "topk_overlap": Kind("top-k overlap", "share of the student's likeliest tokens among the teacher's"),
    "student_topk_mass": Kind("top-k mass", "the teacher's probability of the student's likeliest tokens"),
}
"""All of them by name, in the order in which they are offered."""


def measured(batch: ScoredBatch, targets: Targets) -> dict[str, Tensor]:
    """Return what is known of every token: float32 [N, L] by name, in the order of `KINDS`.

    What the method gives to tokens is NaN on dropped trajectories, which it gives nothing; what the student says is NaN
    on trajectories that it has not read.
    """
    found = {name: values for name, values in batch.signals.items() if name not in PER_TRAJECTORY}
    for name in found.keys() & OF_STUDENT:
        found[name] = torch.where(batch.student_mask, found[name], torch.nan)
    if "teacher_logprobs" in batch.signals:
        found["log_ratio"] = batch.teacher_logprobs - found["student_logprobs"]
    given = {name: values for name, values in targets.tensors.items() if name not in ("keep", "mask")}
    found |= {name: torch.where(targets.mask, values, torch.nan) for name, values in given.items()}
    return {name: found[name].float().cpu() for name in KINDS if name in found}


def extent(values: Sequence[Tensor], centre: float) -> float:
    """Return how far from the centre the full colour is: that of all values but the most extreme; 1 if all are equal.

    Args:
        values: float32 [T] each; those that are not finite have no part in it.
        centre: the value without a colour.
    """
    away = torch.cat([part[part.isfinite()] for part in values]).sub(centre).abs().sort().values
    reach = away[int((1 - OUTLIERS) * (len(away) - 1))].item() if len(away) else 0.0
    return reach or 1.0

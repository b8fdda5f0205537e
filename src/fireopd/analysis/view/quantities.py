"""Token-level quantities of a page: values, labels and colour range."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fireopd.types import ScoredBatch, Source
from fireopd.types.signals import OF_STUDENT, PER_TRAJECTORY
from fireopd.types.targets import Targets

__all__ = ["QUANTITIES", "Quantity", "colour_range", "token_values"]

OUTLIERS = 0.02
"""Fraction of the most extreme values outside the colour range, so that a few outliers do not compress it."""


@dataclass(frozen=True)
class Quantity:
    """Token-level quantity."""

    label: str
    """Label."""
    meaning: str
    """Description with unit."""
    centre: float = 0.0
    """Value at the centre of the colour map."""


QUANTITIES = {
    "weight": Quantity("weight", "token weight, 1 on average", 1.0),
    "advantage": Quantity("advantage", "nats; positive raises the token's probability"),
    "coefficient": Quantity("divergence coefficient", "factor of the token's divergence in the loss"),
    "log_ratio": Quantity("log-ratio", "log teacher - log student, nats"),
    "teacher_logprobs": Quantity("teacher log-prob", "of the token under the teacher of the row, nats"),
    "student_logprobs": Quantity("student log-prob", "of the token before the update, nats"),
    "sampling_logprobs": Quantity("sampling log-prob", "of the token at sampling time in the engine, nats"),
    "base_logprobs": Quantity("base log-prob", "of the token under the base model, nats"),
    "teacher_entropy": Quantity("teacher entropy", "of the teacher's distribution for the token, nats"),
    "student_entropy": Quantity("student entropy", "of the student's distribution for the token, nats"),
    "importance": Quantity("importance", "importance weight between sampler and student, capped", 1.0),
    "reverse_kl": Quantity("reverse KL", "KL(student || teacher) over the whole vocabulary, nats"),
    "topk_reverse_kl": Quantity("top-k reverse KL", "KL(student || teacher) on the student's top-k tokens, nats"),
    "topk_forward_kl": Quantity("top-k forward KL", "KL(teacher || student), each on its own top-k tokens, nats"),
    "topk_overlap": Quantity("top-k overlap", "fraction of the student's top-k tokens that are in the teacher's top-k"),
    "student_topk_mass": Quantity("top-k mass", "teacher probability of the student's top-k tokens"),
    "teacher_rank": Quantity("teacher rank", "rank of the student's likeliest token under the teacher, from 1"),
    "teacher_wrote": Quantity("written by a teacher", "1 for tokens of a teacher, 0 for those of the student"),
}
"""Quantities by name, in the order of the selection list."""


def token_values(batch: ScoredBatch, targets: Targets) -> dict[str, Tensor]:
    """Return float32 [N, L] values by name of the quantity, in the order of `QUANTITIES`.

    Training targets are NaN on dropped trajectories; signals of the student are NaN on trajectories that the student
    did not score.
    """
    found = {name: values for name, values in batch.signals.items() if name not in PER_TRAJECTORY}
    for name in found.keys() & OF_STUDENT:
        found[name] = torch.where(batch.student_mask, found[name], torch.nan)
    if batch.sources is not None:
        found["teacher_wrote"] = batch.tokens_by(Source.TEACHER)
    if "teacher_logprobs" in batch.signals:
        found["log_ratio"] = batch.teacher_logprobs - found["student_logprobs"]
    given = {name: values for name, values in targets.tensors.items() if name not in ("keep", "mask")}
    found |= {name: torch.where(targets.mask, values, torch.nan) for name, values in given.items()}
    return {name: found[name].float().cpu() for name in QUANTITIES if name in found}


def colour_range(values: Sequence[Tensor], centre: float) -> float:
    """Return the distance from the centre to the ends of the colour map; 1 if all values equal the centre.

    It is the largest distance of any value except the `OUTLIERS` most extreme ones.

    Args:
        values: float32 [T] each; non-finite values are ignored.
        centre: value at the centre of the colour map.
    """
    away = torch.cat([part[part.isfinite()] for part in values]).sub(centre).abs().sort().values
    reach = away[int((1 - OUTLIERS) * (len(away) - 1))].item() if len(away) else 0.0
    return reach or 1.0

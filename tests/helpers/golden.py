"""Recorded results of the released code."""

import json

import torch
from helpers.paths import GOLDEN

from fireopd.types import ScoredBatch

RECORDED = json.loads((GOLDEN / "fire_reference.json").read_text())["cases"]


def golden_batch(case):
    inputs = {name: torch.tensor(values) for name, values in case["inputs"].items()}
    mask = inputs["response_mask"].bool()
    signals = {name: inputs[name] for name in ("student_entropy", "teacher_logprobs", "teacher_entropy")}
    signals |= {"student_logprobs": inputs["old_logprobs"], "sampling_logprobs": inputs["old_logprobs"]}
    return inputs["student_logprobs"], ScoredBatch(
        tokens=torch.zeros(mask.shape, dtype=torch.int64),
        response_mask=mask,
        groups=torch.arange(len(mask)),
        finished=torch.ones(len(mask), dtype=torch.bool),
        teachers=tuple(case["teachers"]),
        signals=signals,
    )

"""Recorded results of the released code."""

import json

import torch
from helpers.paths import GOLDEN

from fireopd.types import ScoredBatch

RECORDED = json.loads((GOLDEN / "fire_reference.json").read_text())["cases"]
METHODS = json.loads((GOLDEN / "methods_reference.json").read_text())["cases"]
"""Cases of other methods: inputs, and the answers of released implementations."""


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


def methods_batch(case):
    """Return the scored batch of a case of `METHODS`."""
    inputs = {name: torch.tensor(values) for name, values in case["inputs"].items()}
    mask = inputs["response_mask"].bool()
    signals = {name: inputs[name] for name in ("student_logprobs", "teacher_logprobs", "rewards")}
    return ScoredBatch(
        tokens=inputs["tokens"],
        response_mask=mask,
        groups=inputs["groups"],
        finished=torch.ones(len(mask), dtype=torch.bool),
        teachers=("t",) * len(mask),
        signals=signals | {"sampling_logprobs": inputs["student_logprobs"]},
    )


def official(case, key):
    """Return the recorded answer of a released implementation as a tensor."""
    return torch.tensor(case["official"][key])

"""Recorded results of the released code."""

import json

import torch
from helpers.paths import GOLDEN

from fireopd.types import ScoredBatch

RECORDED = json.loads((GOLDEN / "fire_reference.json").read_text())["cases"]
METHODS = json.loads((GOLDEN / "methods_reference.json").read_text())["cases"]
"""Cases of other methods: inputs, and the answers of released implementations."""
for _case, _more in zip(METHODS, json.loads((GOLDEN / "methods_reference_2.json").read_text())["cases"], strict=True):
    _case["inputs"], _case["official"] = _case["inputs"] | _more["inputs"], _case["official"] | _more["official"]
    _case["teachers"] = _more["teachers"]


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
    names = ("student_logprobs", "teacher_logprobs", "rewards", "student_entropy", "sampling_logprobs")
    return ScoredBatch(
        tokens=inputs["tokens"],
        response_mask=mask,
        groups=inputs["groups"],
        finished=torch.ones(len(mask), dtype=torch.bool),
        teachers=tuple(case["teachers"]),
        signals={name: inputs[name] for name in names},
    )


def official(case, key):
    """Return the recorded answer of a released implementation as a tensor."""
    return torch.tensor(case["official"][key])

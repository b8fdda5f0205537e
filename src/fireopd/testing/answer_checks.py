"""Checks of answers: shape, dtype, range, no gradient, no change of the batch.

Each check is a function of the subject that returns a paragraph for the strategy's author; empty if the check passes.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fireopd.filters import TrajectoryFilter
from fireopd.testing.example_batches import edge_cases, example_batch, with_garbage, with_signals
from fireopd.testing.subject import VERSIONS, NoAnswerError, Subject, at, shown
from fireopd.types import ScoredBatch

__all__ = [
    "does_not_modify_the_batch",
    "handles_edge_cases",
    "has_valid_shape",
    "returns_no_gradient",
    "stays_in_range",
]


def has_valid_shape(subject: Subject) -> str:
    """Check shape and dtype of the answer for an ordinary batch; all other answer checks depend on it."""
    subject.answer(subject.narrow)
    return ""


def stays_in_range(subject: Subject) -> str:
    """Check that answers for ordinary batches are in range."""
    late = [replace(subject.examples[0], policy_version=version) for version in LATE]
    for batch in [*subject.examples, *late]:
        if problem := range_problem(subject, subject.answer(batch), batch):
            when = f" in step {batch.policy_version}" if batch.policy_version in LATE else ""
            return f"{problem}{when}. {REMEDIES[subject.spec.minimum]}"
    return ""


LATE = (250, 1_000, 10_000, 1_000_000)
"""Policy versions late in a run, after the end of a schedule."""
REMEDIES = {
    0.0: "Return finite values >= 0: use torch.clamp, and denominators that cannot be 0.",
    -torch.inf: "Return finite values: use torch.clamp, and denominators that cannot be 0.",
}
"""Remedy for a value out of range, by the lower bound of the range."""


def handles_edge_cases(subject: Subject) -> str:
    """Check that edge cases have valid answers."""
    problems = [problem for version in VERSIONS for problem in _problems(subject, edge_cases(version))]
    if subject.spec.base is TrajectoryFilter:
        impossible = with_signals(
            example_batch(), lambda name, v: torch.full_like(v, -torch.inf) if name == "teacher_logprobs" else v
        )
        problems += _problems(subject, {"teacher log-probabilities of -inf": impossible})
    if not problems:
        return ""
    return (
        f"fails on edge cases: {'; '.join(dict.fromkeys(problems))}. Check denominators of 0, statistics over an empty "
        f"mask (those of fireopd.reductions are 0 then) and overflow of exponentials (clamp their argument)."
    )


def _problems(subject: Subject, batches: dict[str, ScoredBatch]) -> list[str]:
    problems = []
    for name, batch in batches.items():
        try:
            answer = subject.answer(batch, name)
        except NoAnswerError as error:
            problems.append(str(error).rstrip("."))
            continue
        problem = range_problem(subject, answer, batch)
        problems += [f"{problem} on {name}"] if problem else []
    return problems


def range_problem(subject: Subject, answer: Tensor, batch: ScoredBatch) -> str:
    """Return the first value of an answer that is out of range, with its index; empty if all are in range."""
    if not answer.is_floating_point():
        return ""
    wrong = ~(answer.isfinite() & (answer >= subject.spec.minimum))
    wrong &= batch.response_mask if subject.spec.per_token else True
    if not wrong.any():
        return ""
    index = tuple(wrong.nonzero()[0].tolist())
    return f"returns the value {shown(answer[index])} for {at(index)}"


def returns_no_gradient(subject: Subject) -> str:
    """Check that the answer has no graph, even if the signals require a gradient."""
    batch = example_batch()
    leaves = {name: value.clone().requires_grad_() for name, value in batch.signals.items()}
    answer = subject.answer(replace(batch, signals=leaves))
    reached = [name for name, leaf in leaves.items() if leaf.grad is not None]
    if answer.grad_fn is None and not reached:
        return ""
    return (
        "leaks a gradient: its answer is attached to a graph, which would be kept for the whole step. "
        "Remove torch.enable_grad, or return .detach()."
    )


def does_not_modify_the_batch(subject: Subject) -> str:
    """Check that the batch, which all strategies share, is unchanged."""
    batch = example_batch(seed=6)
    extreme = with_signals(batch, lambda name, v: v * 1000 - 1000 if name.endswith("_logprobs") else v * 1000)
    changed = {name for values in (batch, with_garbage(batch, 777.0), extreme) for name in _modified(subject, values)}
    if not changed:
        return ""
    names = ", ".join(sorted(changed))
    return (
        f"modifies its batch ({names}), which other strategies also read. Avoid in-place operations "
        f"(names that end in _, or batch.{min(changed)}[...] = ...), or call .clone() first."
    )


def _modified(subject: Subject, batch: ScoredBatch) -> list[str]:
    """Return the names of the tensors of a batch that a strategy changes."""
    tensors = {"tokens": batch.tokens, "response_mask": batch.response_mask, "groups": batch.groups}
    tensors |= {"finished": batch.finished, **batch.signals}
    before = {name: value.clone() for name, value in tensors.items()}
    subject.answer(batch)
    return [name for name, value in tensors.items() if not torch.equal(value, before[name])]

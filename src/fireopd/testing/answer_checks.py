"""What a strategy must answer: shape, type, range, no gradient, and the batch left as it was."""

from dataclasses import replace

import torch
from torch import Tensor

from fireopd.filters import TrajectoryFilter
from fireopd.testing.example_batches import edges, example_batch, with_signals
from fireopd.testing.subject import VERSIONS, NoAnswerError, Subject, at, shown
from fireopd.types import ScoredBatch


def answers(subject: Subject) -> str:
    """An ordinary batch has an answer of the right shape and type; without it there is nothing to examine further."""
    subject.answer(subject.quiet)
    return ""


def stays_in_range(subject: Subject) -> str:
    """An ordinary batch has an answer in range."""
    for batch in subject.examples:
        if wrong := out_of_range(subject, subject.answer(batch), batch):
            return f"{wrong}. {REMEDIES[subject.question.smallest]}"
    return ""


REMEDIES = {
    0.0: "Return numbers that are finite and >= 0: torch.clamp helps, and a denominator that cannot be 0.",
    -torch.inf: "Return finite numbers: torch.clamp helps, and a denominator that cannot be 0.",
}
"""What to do about a number that is not allowed, by the smallest that is."""


def survives_the_edges(subject: Subject) -> str:
    """What happens rarely has an answer too."""
    wrong = [problem for version in VERSIONS for problem in _at_edges(subject, edges(version))]
    if subject.question.of is TrajectoryFilter:
        impossible = with_signals(
            example_batch(), lambda name, v: torch.full_like(v, -torch.inf) if name == "teacher_logprobs" else v
        )
        wrong += _at_edges(subject, {"teacher log-probabilities of -inf": impossible})
    if not wrong:
        return ""
    return (
        f"fails at the edges: {'; '.join(dict.fromkeys(wrong))}. Mind denominators of 0, statistics of nothing "
        f"(fireopd.reductions has some that are 0 then) and exponentials that overflow (clamp what goes in)."
    )


def _at_edges(subject: Subject, batches: dict[str, ScoredBatch]) -> list[str]:
    wrong = []
    for name, batch in batches.items():
        try:
            answer = subject.answer(batch, name)
        except NoAnswerError as error:
            wrong.append(str(error).rstrip("."))
            continue
        problem = out_of_range(subject, answer, batch)
        wrong += [f"{problem} on {name}"] if problem else []
    return wrong


def out_of_range(subject: Subject, answer: Tensor, batch: ScoredBatch) -> str:
    """Return the first number of an answer that is not allowed, with its place; empty if there is none."""
    if not answer.is_floating_point():
        return ""
    wrong = ~(answer.isfinite() & (answer >= subject.question.smallest))
    wrong &= batch.response_mask if subject.question.per_token else True
    if not wrong.any():
        return ""
    place = tuple(wrong.nonzero()[0].tolist())
    return f"gives {at(place)} the value {shown(answer[place])}"


def gives_no_gradient(subject: Subject) -> str:
    """An answer is a constant, even where what it is made from has a gradient."""
    batch = example_batch()
    leaves = {name: value.clone().requires_grad_() for name, value in batch.signals.items()}
    answer = subject.answer(replace(batch, signals=leaves))
    reached = [name for name, leaf in leaves.items() if leaf.grad is not None]
    if answer.grad_fn is None and not reached:
        return ""
    return (
        "leaks a gradient: its answer hangs on a graph, which would be kept for the whole step. "
        "Leave out torch.enable_grad, or end with .detach()."
    )


def leaves_the_batch_alone(subject: Subject) -> str:
    """The other strategies see the same batch."""
    batch = example_batch(seed=6)
    tensors = {"tokens": batch.tokens, "response_mask": batch.response_mask, "groups": batch.groups}
    tensors |= {"finished": batch.finished, **batch.signals}
    before = {name: value.clone() for name, value in tensors.items()}
    subject.answer(batch)
    changed = [name for name, value in tensors.items() if not torch.equal(value, before[name])]
    if not changed:
        return ""
    return (
        f"modifies the batch it is given ({', '.join(changed)}), which other strategies read too. Avoid operations in "
        f"place (a name that ends in _, or batch.{changed[0]}[...] = ...), or .clone() first."
    )

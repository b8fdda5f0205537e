"""Checks that answers do not depend on hidden state, randomness, masked values, padding, or the order of rows.

Each check is a function of the subject that returns a paragraph for the strategy's author; empty if the check passes.
"""

import random
from dataclasses import replace

import numpy
import torch
from torch import Tensor

from fireopd.testing.example_batches import example_batch, with_garbage, with_padding, with_signals
from fireopd.testing.subject import VERSIONS, Subject, difference
from fireopd.types import ScoredBatch
from fireopd.types.signals import PER_TRAJECTORY
from fireopd.types.strategy_state import Stateful

__all__ = [
    "declares_that_it_needs_groups",
    "does_not_compare_rows_if_by_trajectory",
    "does_not_depend_on_padding",
    "does_not_depend_on_row_order",
    "does_not_read_group_numbers",
    "has_no_hidden_state",
    "ignores_empty_responses",
    "ignores_values_off_the_mask",
]

GENERATORS = ("torch", "random", "numpy")
"""Modules with a global generator of random numbers."""
GARBAGE = (torch.nan, torch.inf, -torch.inf, 1e30)
"""Values planted off the response mask."""


def has_no_hidden_state(subject: Subject) -> str:
    """Check that equal batches have equal answers, whatever batches came in between. Must run before other checks."""
    batch = subject.narrow
    generators = torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())
    first, second = (subject.answer(batch) for _ in range(2))
    now = torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())
    if drawn := [name for name, old, new in zip(GENERATORS, generators, now, strict=True) if str(old) != str(new)]:
        return (
            f"draws from {drawn[0]}'s global generator, so processes and resumed runs would differ. Create a "
            f"torch.Generator, seeded by a setting and batch.policy_version."
        )
    if changed := difference(first, second, batch.response_mask):
        return (
            f"returns different answers for the same batch ({changed}): it has state or draws random numbers. "
            f"Compute from the batch only; seed a torch.Generator by a setting and batch.policy_version."
        )
    used, other = subject.copied(), subject.copied()
    subject.answer(batch, of=used)
    for version in VERSIONS:
        wide = example_batch(seed=8, policy_version=version)
        subject.answer(wide, "a second batch", used)
        for row in range(len(wide.teachers)):
            subject.answer(wide.select([row]), "one row of a batch")
    if changed := difference(first, subject.answer(batch), batch.response_mask):
        return (
            f"returns a different answer after other instances have seen other batches ({changed}): it has state in a "
            f"global variable or a class attribute, for example statistics over micro-batches. Compute from the batch "
            f"only: it is the global batch, with all trajectories of a step."
        )
    if isinstance(used, Stateful) and isinstance(other, Stateful):
        other.load_state_dict(used.state_dict())
    answers = subject.answer(batch, of=other), subject.answer(batch, of=used)
    if changed := difference(*answers, batch.response_mask):
        return (
            f"returns a different answer after it has seen other batches ({changed}): it has a hidden state. Compute "
            f"from the batch only, or implement state_dict and load_state_dict, so that checkpoints include the state."
        )
    return ""


def ignores_values_off_the_mask(subject: Subject) -> str:
    """Check that signals at prompts and padding have no effect."""
    for batch in subject.examples:
        clean = subject.answer(batch)
        for value in GARBAGE:
            dirty = subject.answer(with_garbage(batch, value), f"a batch with {value} off the response mask")
            if changed := difference(clean, dirty, batch.response_mask):
                return (
                    f"reads values off the response mask: with {value} planted there, {changed}. Take statistics "
                    f"over batch.response_mask only, by total, mean, maximum and row_mean of fireopd.reductions, and "
                    f"mask by torch.where (not by a product: 0 * nan is nan)."
                )
    return ""


def does_not_depend_on_padding(subject: Subject) -> str:
    """Check that additional columns of padding have no effect."""
    for batch in subject.examples:
        narrow = subject.answer(batch)
        for columns in (1, 9):
            wide = subject.answer(with_padding(batch, columns), f"a batch with {columns} additional columns")
            cut = wide[:, : batch.tokens.shape[1]] if wide.dim() == 2 else wide
            if changed := difference(narrow, cut, batch.response_mask):
                return (
                    f"depends on padding: with {columns} additional columns on the right, {changed}. Count tokens by "
                    f"batch.lengths, not by the width, and take statistics over batch.response_mask only."
                )
    return ""


def does_not_depend_on_row_order(subject: Subject) -> str:
    """Check that a permutation of the rows permutes the answers."""
    examples = subject.examples
    tied = with_signals(examples[0], lambda name, value: (value / 4).round() * 4)
    for batch in (*examples, tied, examples[0].select([0, 1, 2, 3] * 2)):
        expected = subject.answer(batch)
        rows = len(batch.teachers)
        for order in (range(rows)[::-1], torch.randperm(rows, generator=torch.Generator().manual_seed(9)).tolist()):
            permuted = subject.answer(batch.select(order), "a batch in another order")
            if changed := difference(expected, _unpermuted(permuted, list(order)), batch.response_mask):
                return (
                    f"depends on the order of rows: with trajectories in another order, {changed}. Rows come in "
                    f"any order, also those of one prompt: use batch.groups and batch.teachers, not row indices, and "
                    f"return equal answers for equal trajectories."
                )
    return ""


def does_not_read_group_numbers(subject: Subject) -> str:
    """Check that other numbers of the same groups have no effect."""
    batch = subject.examples[0]
    numbers = {group: 7 + (group * 31) % 97 for group in batch.groups.tolist()}
    other = replace(batch, groups=torch.tensor([numbers[group] for group in batch.groups.tolist()]))
    changed = difference(subject.answer(batch), subject.answer(other), batch.response_mask)
    if not changed:
        return ""
    return (
        f"depends on the numbers in batch.groups: with other numbers of the same groups, {changed}. Compare rows by "
        f"batch.groups[:, None] == batch.groups: only equality has a meaning."
    )


def ignores_empty_responses(subject: Subject) -> str:
    """Check that weights and advantages of other trajectories do not depend on a trajectory without a response."""
    if not subject.spec.per_token or subject.declared & PER_TRAJECTORY:
        return ""
    batch = subject.examples[0]
    rows = list(range(len(batch.teachers)))
    more = batch.select([*rows, 0, 0])
    mask = more.response_mask.clone()
    mask[len(rows) :] = False
    empty = with_signals(replace(more, response_mask=mask), lambda name, value: value)
    changed = difference(subject.answer(batch), subject.answer(empty)[: len(rows)], batch.response_mask)
    if not changed:
        return ""
    return (
        f"depends on trajectories with an empty response: with two of them added, {changed}. Leave them out of "
        f"statistics: a mean over trajectories covers rows with batch.lengths > 0."
    )


def does_not_compare_rows_if_by_trajectory(subject: Subject) -> str:
    """Check, for `by_trajectory` strategies, that answers do not depend on the other rows of the batch."""
    if not subject.strategy.by_trajectory:
        return ""
    for batch in subject.examples:
        whole = subject.answer(batch)
        for rows in (range(0, len(batch.teachers), 2), range(1)):
            part = subject.answer(batch.select(rows), "some rows of a batch")
            if changed := difference(whole[list(rows)], part, batch.response_mask[list(rows)]):
                return (
                    f"sets by_trajectory = True, but its answer changes if other rows of the batch are missing "
                    f"({changed}). Remove by_trajectory: with the default, False, it sees the whole batch."
                )
    return ""


def declares_that_it_needs_groups(subject: Subject) -> str:
    """Check `needs_groups`: it must be True if rewards have an effect in groups, and none on single responses."""
    if "rewards" not in subject.declared or subject.strategy.needs_groups:
        return ""
    batch = subject.examples[0]
    single = replace(batch, groups=torch.arange(len(batch.groups)))
    in_groups, alone = (_rewards_matter(subject, rows) for rows in (batch, single))
    if in_groups and not alone:
        return (
            "reads rewards, which have an effect in groups of several responses to one prompt, and none on single "
            "responses. Set needs_groups = True, so that a run with data.responses_per_prompt 1 is refused."
        )
    return ""


def _rewards_matter(subject: Subject, batch: ScoredBatch) -> bool:
    signals = dict(batch.signals) | {"rewards": 1 - batch.signals["rewards"]}
    answer, other = subject.answer(batch), subject.answer(replace(batch, signals=signals))
    return bool(difference(answer, other, batch.response_mask))


def _unpermuted(answer: Tensor, order: list[int]) -> Tensor:
    """Return the answer with its rows in the original order."""
    original = torch.empty_like(answer)
    original[order] = answer
    return original

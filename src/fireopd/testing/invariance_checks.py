"""What must not change an answer: padding, the order of rows, what was asked before, and chance."""

import torch
from torch import Tensor

from fireopd.testing.example_batches import example_batch, with_garbage, with_padding
from fireopd.testing.subject import VERSIONS, Subject, difference
from fireopd.types.strategy_state import Stateful

GARBAGE = (torch.nan, torch.inf, -torch.inf, 1e30)
"""What is planted where nobody should look."""


def remembers_nothing(subject: Subject) -> str:
    """The same batch has the same answer, whatever was asked in between. Has to be examined first."""
    quiet = subject.quiet
    generator = torch.get_rng_state()
    first, second = (subject.answer(quiet) for _ in range(2))
    if not torch.equal(generator, torch.get_rng_state()):
        return (
            "draws from torch's global generator, so that processes and resumed runs would differ. Make a "
            "torch.Generator, seeded by a setting and batch.policy_version."
        )
    if changed := difference(first, second, quiet.response_mask):
        return (
            f"answers the same batch differently when asked twice ({changed}): it keeps something between calls, or "
            f"draws lots. Compute from the batch alone; seed a torch.Generator by a setting and batch.policy_version."
        )
    used, other = subject.copied(), subject.copied()
    subject.answer(quiet, of=used)
    for version in VERSIONS:
        loud = example_batch(seed=8, policy_version=version)
        subject.answer(loud, "a second batch", used)
        for row in range(len(loud.teachers)):
            subject.answer(loud.select([row]), "one row of a batch")
    if changed := difference(first, subject.answer(quiet), quiet.response_mask):
        return (
            f"answers a batch differently once other instances have seen other batches ({changed}): something is kept "
            f"in a global variable or a class attribute, as statistics over micro-batches are. Compute from the batch "
            f"alone: it is the global one, all trajectories of a step."
        )
    if isinstance(used, Stateful) and isinstance(other, Stateful):
        other.load_state_dict(used.state_dict())
    answers = subject.answer(quiet, of=other), subject.answer(quiet, of=used)
    if changed := difference(*answers, quiet.response_mask):
        return (
            f"answers a batch differently once it has seen others ({changed}): it has a hidden state. Compute from the "
            f"batch alone, or give it state_dict and load_state_dict, so that checkpoints hold the state."
        )
    return ""


def ignores_what_is_off_the_mask(subject: Subject) -> str:
    """What stands in prompts and padding of a signal is nobody's business."""
    for batch in subject.examples:
        clean = subject.answer(batch)
        for value in GARBAGE:
            dirty = subject.answer(with_garbage(batch, value), f"a batch with {value} off the response mask")
            if changed := difference(clean, dirty, batch.response_mask):
                return (
                    f"reads what is off the response mask: with {value} planted there, {changed}. Take statistics "
                    f"over batch.response_mask only: fireopd.reductions has total, mean, maximum and row_mean, and "
                    f"torch.where masks (a product does not: 0 * nan is nan)."
                )
    return ""


def does_not_depend_on_padding(subject: Subject) -> str:
    """More columns of padding change nothing."""
    for batch in subject.examples:
        narrow = subject.answer(batch)
        for columns in (1, 9):
            wide = subject.answer(with_padding(batch, columns), f"a batch with {columns} more columns")
            cut = wide[:, : batch.tokens.shape[1]] if wide.dim() == 2 else wide
            if changed := difference(narrow, cut, batch.response_mask):
                return (
                    f"depends on padding: with {columns} more columns on the right, {changed}. Count tokens by "
                    f"batch.lengths, never by the width, and take statistics over batch.response_mask only."
                )
    return ""


def follows_the_order_of_rows(subject: Subject) -> str:
    """When trajectories change places, so do their answers."""
    for batch in subject.examples:
        straight = subject.answer(batch)
        rows = len(batch.teachers)
        for order in (range(rows)[::-1], torch.randperm(rows, generator=torch.Generator().manual_seed(9)).tolist()):
            shuffled = subject.answer(batch.select(order), "a batch in another order")
            back = _in_place(shuffled, list(order))
            if changed := difference(straight, back, batch.response_mask):
                return (
                    f"depends on the order of rows: with trajectories in another order, {changed}. Rows come in any "
                    f"order, also those of one prompt: tell them by batch.groups and batch.teachers, never by their "
                    f"place, and let equal trajectories have equal answers."
                )
    return ""


def answers_each_trajectory_alone_if_it_says_so(subject: Subject) -> str:
    """With `by_trajectory`, the answer about some rows is the same when the others are not there."""
    if not subject.strategy.by_trajectory:
        return ""
    for batch in subject.examples:
        whole = subject.answer(batch)
        for rows in (range(0, len(batch.teachers), 2), range(1)):
            part = subject.answer(batch.select(rows), "some rows of a batch")
            if changed := difference(whole[list(rows)], part, batch.response_mask[list(rows)]):
                return (
                    f"says by_trajectory = True, but answers otherwise when other rows of the batch are missing "
                    f"({changed}). Leave by_trajectory out: the default, False, has it asked of the whole batch."
                )
    return ""


def _in_place(answer: Tensor, order: list[int]) -> Tensor:
    """Return the rows of an answer where they were before they were put into an order."""
    back = torch.empty_like(answer)
    back[order] = answer
    return back

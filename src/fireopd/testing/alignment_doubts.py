"""Suspicions about the alignment of answers with tokens: legal, and often a mistake."""

from dataclasses import replace

import torch
from torch import Tensor

from fireopd.testing.example_batches import VOCABULARY
from fireopd.testing.subject import NoAnswerError, Subject, difference
from fireopd.types import ScoredBatch
from fireopd.types.signals import PER_TRAJECTORY

__all__ = ["alignment_doubts"]

PROMPT = 3
"""Number of tokens by which prompts are lengthened."""


def alignment_doubts(subject: Subject) -> list[str]:
    """Return descriptions of answers that look shifted against the tokens, or that count positions from the prompt."""
    if not subject.spec.per_token:
        return []
    try:
        return [doubt for doubt in (_of_shift(subject), _of_positions(subject)) if doubt]
    except NoAnswerError:
        return []


def _of_shift(subject: Subject) -> str:
    """Return the doubt if the answers of several batches are shifted in the same direction."""
    batches = [*subject.examples, subject.narrow]
    found = {_shift(subject, batch) for batch in batches}
    return found.pop() if len(found) == 1 else ""


def _shift(subject: Subject, batch: ScoredBatch) -> str:
    """Compare the answers before and after the signals of one token change."""
    row = int(batch.lengths.argmax())
    places = batch.response_mask[row].nonzero().flatten()
    token = int(places[len(places) // 2])
    before, moved = subject.answer(batch), torch.zeros(batch.tokens.shape[1], dtype=torch.bool)
    for factor in (0.25, 0.5, 2.0):
        signals = {name: _changed(name, value, row, token, factor) for name, value in batch.signals.items()}
        after = subject.answer(replace(batch, signals=signals))
        moved |= ~torch.isclose(before[row].double(), after[row].double(), rtol=1e-4, atol=1e-6, equal_nan=True)
    moved &= batch.response_mask[row]
    if moved.sum() != 1 or not (moved[token - 1] or moved[token + 1]):  # a sum over later tokens moves several
        return ""
    other = "before" if moved[token - 1] else "after"
    return (
        f"does not change for a token when its signals change, but for the token {other} it: index t of every signal "
        f"is about token t, so no shift is needed"
    )


def _changed(name: str, value: Tensor, row: int, token: int, factor: float) -> Tensor:
    if name in PER_TRAJECTORY:
        return value
    changed = value.clone()
    changed[row, token] = value[row, token] * factor
    return changed


def _of_positions(subject: Subject) -> str:
    """Compare the answers before and after all prompts get longer, unless other prompt tokens have an effect, too."""
    batch = subject.examples[0]
    answer = subject.answer(batch)
    prompt = (batch.response_mask.cumsum(-1) == 0) & batch.response_mask.any(-1, keepdim=True)
    other = replace(batch, tokens=torch.where(prompt, (batch.tokens + 1) % VOCABULARY, batch.tokens))
    if difference(answer, subject.answer(other), batch.response_mask):
        return ""
    longer = subject.answer(_with_longer_prompts(batch))[:, PROMPT:]
    if not (changed := difference(answer, longer, batch.response_mask)):
        return ""
    return (
        f"changes when prompts get longer ({changed}): it counts positions from the start of the prompt. Count from "
        f"the start of the response: batch.response_mask.cumsum(-1)"
    )


def _with_longer_prompts(batch: ScoredBatch) -> ScoredBatch:
    def moved(values: Tensor) -> Tensor:
        return torch.cat([values.new_zeros(len(values), PROMPT), values], -1)

    signals = {name: value if name in PER_TRAJECTORY else moved(value) for name, value in batch.signals.items()}
    return replace(batch, tokens=moved(batch.tokens), response_mask=moved(batch.response_mask), signals=signals)

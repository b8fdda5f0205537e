"""Log-probabilities of vLLM in lists of numbers (`flat_logprobs`), without an object for each token."""

from collections.abc import Sequence
from typing import Any

__all__ = ["chosen_logprobs"]


def chosen_logprobs(flat: Any, tokens: Sequence[int], first: int = 0) -> list[float]:
    """Return the log-probabilities of tokens, the first entries of the positions in vLLM's `FlatLogprobs`.

    Args:
        flat: log-probabilities of vLLM.
        tokens: tokens of the positions.
        first: position of the first token.

    Raises:
        RuntimeError: if the entries are those of other tokens.
    """
    starts = flat.start_indices[first:]
    if [flat.token_ids[start] for start in starts] != list(tokens):
        raise RuntimeError("vLLM returned log-probabilities of other tokens")
    return [flat.logprobs[start] for start in starts]

"""Texts of single tokens whose concatenation is the decoded text."""

from collections.abc import Sequence
from functools import lru_cache

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

__all__ = ["decode_tokens"]

REPLACEMENT = "\ufffd"
"""Replacement character, which a decoder emits for an incomplete or invalid character."""
LONGEST_CHARACTER = 4
"""Maximum bytes of a character in UTF-8; after more tokens than that, the bytes are invalid rather than incomplete."""


def decode_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """Return the text of each token; a character made of several tokens belongs to the last of them.

    Tokens are decoded together with the preceding one, since many tokenizers strip leading spaces.
    """

    @lru_cache(maxsize=65536)
    def text(part: tuple[int, ...]) -> str:
        return str(tokenizer.decode(list(part), clean_up_tokenization_spaces=False))

    found: list[str] = []
    start = done = 0
    for end in range(1, len(tokens) + 1):
        before, after = text(tuple(tokens[start:done])), text(tuple(tokens[start:end]))
        incomplete = after.endswith(REPLACEMENT) and end < len(tokens) and end - done < LONGEST_CHARACTER
        found.append("" if incomplete else after[len(before) :])
        if not incomplete:
            start, done = done, end
    return found

"""The text of single tokens, such that together they are the text of all."""

from collections.abc import Sequence
from functools import lru_cache

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no whole character yet."""
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, at most: more tokens than that, and the bytes are wrong rather than unfinished."""


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """Return what each token adds to the text; of a character that several tokens make up, the last one adds it all.

    A token is decoded after the one before it, because the spaces of many tokenizers depend on that.
    """

    @lru_cache(maxsize=65536)
    def text(part: tuple[int, ...]) -> str:
        return str(tokenizer.decode(list(part), clean_up_tokenization_spaces=False))

    found: list[str] = []
    start = done = 0
    for end in range(1, len(tokens) + 1):
        before, after = text(tuple(tokens[start:done])), text(tuple(tokens[start:end]))
        waiting = after.endswith(UNFINISHED) and end < len(tokens) and end - done < LONGEST_CHARACTER
        found.append("" if waiting else after[len(before) :])
        if not waiting:
            start, done = done, end
    return found

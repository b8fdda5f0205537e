"""Tokenization of prompts and limits on their length."""

from collections.abc import Sequence
from math import inf
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.models.loading import context_length, encode_chats
from fireopd.prompts.base import PromptText
from fireopd.types import Prompt

__all__ = ["TOKENIZED_AT_ONCE", "check_lengths", "longest_prompt", "tokenize", "untokenized"]

TOKENIZED_AT_ONCE = 1024
"""Number of prompts per call of the tokenizer, which processes them in parallel; bounds the memory."""


def tokenize(
    texts: Sequence[PromptText], tokenizer: PreTrainedTokenizerBase, chat_template_options: dict[str, Any], key: str
) -> list[Prompt]:
    """Return tokenized prompts; chat messages go through the chat template.

    Args:
        texts: prompts to tokenize.
        tokenizer: tokenizer of the model.
        chat_template_options: passed to the chat template.
        key: setting of the prompts, for error messages.

    Raises:
        UserError: if a prompt has chat messages and the tokenizer has no chat template,
            or if a prompt has no tokens.
    """
    prompts = []
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = texts[start : start + TOKENIZED_AT_ONCE]
        plain = [text.content for text in part if isinstance(text.content, str)]
        chats = [text.content for text in part if not isinstance(text.content, str)]
        if chats and tokenizer.chat_template is None:
            place = next(text.id for text in part if not isinstance(text.content, str))
            remedy = 'write rows with "prompt": text, or use a model with a chat template'
            raise UserError(key, place, "the model's tokenizer has no chat template", remedy)
        of_plain = iter(tokenizer(plain)["input_ids"] if plain else [])
        of_chats = iter(encode_chats(tokenizer, chats, chat_template_options) if chats else [])
        for text in part:
            tokens = next(of_plain if isinstance(text.content, str) else of_chats)
            if not tokens:
                raise UserError(key, text.id, "the prompt has no tokens", "give it a text, or leave it out")
            prompts.append(_prompt(text, tuple(tokens), chat_template_options))
    return prompts


def untokenized(texts: Sequence[PromptText]) -> list[Prompt]:
    """Return prompts without tokens, for checks of all that does not depend on the tokenizer."""
    return [_prompt(text, (), {}) for text in texts]


def _prompt(text: PromptText, tokens: tuple[int, ...], chat_template_options: dict[str, Any]) -> Prompt:
    return Prompt(
        tokens=tokens,
        teacher=text.teacher,
        task=text.task,
        answer=text.answer,
        id=text.id,
        content=text.content,
        template_options=chat_template_options,
        details=text.details,
        source=text.source,
    )


def longest_prompt(model: str, max_response_length: int, longest_trajectory: int | None, key: str) -> float:
    """Return the largest number of prompt tokens that fits into the context together with a response.

    Args:
        model: name or path of the model, whose context length counts.
        max_response_length: tokens that a response may have.
        longest_trajectory: tokens that the engine accepts for prompt and response; None for no limit.
        key: setting of the model, for error messages.
    """
    limits = (context_length(model, key), longest_trajectory)
    return min((limit for limit in limits if limit is not None), default=inf) - max_response_length


def check_lengths(prompts: Sequence[Prompt], limit: float, max_response_length: int, key: str, remedy: str) -> None:
    """Check that no prompt is longer than the limit.

    Args:
        prompts: prompts to check.
        limit: result of `longest_prompt`.
        max_response_length: tokens that a response may have.
        key: setting of the prompts, for the error message.
        remedy: remedy of the error message.

    Raises:
        UserError: if a prompt is longer than the limit.
    """
    longest = max(prompts, key=lambda prompt: len(prompt.tokens), default=None)
    if longest is not None and len(longest.tokens) > limit:
        problem = f"{len(longest.tokens)} prompt tokens and a response of up to {max_response_length}"
        problem += f" do not fit into a context of {limit + max_response_length:.0f}"
        raise UserError(key, longest.id, problem, remedy)

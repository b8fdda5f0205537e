"""Tokenization of prompts, limits on their length, and tokens in a readable form."""

from collections.abc import Sequence
from math import inf
from typing import Any, cast

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.models.loading import context_length, encode_chats
from fireopd.prompts.base import PromptText
from fireopd.types import Prompt

__all__ = [
    "TOKENIZED_AT_ONCE",
    "check_lengths",
    "longest_prompt",
    "readable_tokens",
    "tokenize",
    "unknown_token",
    "untokenized",
]

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
        UserError: if a prompt has chat messages, and the tokenizer has no chat template or the template refuses them;
            or if a prompt has no tokens.
    """
    prompts = []
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        part = texts[start : start + TOKENIZED_AT_ONCE]
        plain = [text.content for text in part if isinstance(text.content, str)]
        chats = [text for text in part if not isinstance(text.content, str)]
        if chats and tokenizer.chat_template is None:
            remedy = 'write rows with "prompt": text, or use a model with a chat template'
            raise UserError(key, chats[0].id, "the model's tokenizer has no chat template", remedy)
        of_plain = iter(tokenizer(plain)["input_ids"] if plain else [])
        of_chats = iter(_encode_chats(chats, tokenizer, chat_template_options, key))
        for text in part:
            tokens = next(of_plain if isinstance(text.content, str) else of_chats)
            if not tokens:
                raise UserError(key, text.id, "the prompt has no tokens", "give it a text, or leave it out")
            prompts.append(_prompt(text, tuple(tokens), chat_template_options))
    return prompts


def _encode_chats(
    texts: Sequence[PromptText], tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], key: str
) -> list[tuple[int, ...]]:
    try:
        return encode_chats(tokenizer, [cast(Any, text.content) for text in texts], options)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        if len(texts) > 1:  # find the prompt
            return [tokens for text in texts for tokens in _encode_chats([text], tokenizer, options, key)]
        problem = f"the chat template refuses it ({' '.join(str(error).split()).rstrip('.')})"
        raise UserError(key, texts[0].id, problem, "fix the messages, or data.chat_template_options") from error


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
        solution=text.solution,
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


def unknown_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token of unknown text; None if the tokenizer can encode any text.

    That of the tokenization model counts if there is one: GPT-2's `unk_token` is its end-of-sequence token, and its
    byte-level model never returns it for text.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(getattr(backend, "model", None), "unk_token"):
        return cast(int | None, tokenizer.unk_token_id)
    token = backend.model.unk_token
    return cast(int, backend.token_to_id(token)) if token else None


def readable_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], separator: str = "") -> str:
    """Return tokens as text in one line, with special tokens visible and line breaks escaped.

    Args:
        tokenizer: tokenizer of the model.
        tokens: token ids.
        separator: text between two tokens; empty for the text that the model reads.
    """
    if not separator:
        return repr(tokenizer.decode(list(tokens), skip_special_tokens=False))[1:-1]
    texts = [str(tokenizer.decode([token], skip_special_tokens=False)) for token in tokens]
    pieces = tokenizer.convert_ids_to_tokens(list(tokens))  # for tokens that are parts of a character
    shown = [piece if "\ufffd" in text else text for text, piece in zip(texts, pieces, strict=True)]
    return separator.join(repr(text)[1:-1] for text in shown)

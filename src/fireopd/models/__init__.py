"""Causal language models: loading, scoring, distributions."""

from fireopd.models.loading import (
    EMBEDDED,
    Dtype,
    context_length,
    disable_dropout,
    encode_chats,
    load_causal_lm,
    load_config,
    load_tokenizer,
    resolve,
    stop_tokens,
)

__all__ = [
    "EMBEDDED",
    "Dtype",
    "context_length",
    "disable_dropout",
    "encode_chats",
    "load_causal_lm",
    "load_config",
    "load_tokenizer",
    "resolve",
    "stop_tokens",
]

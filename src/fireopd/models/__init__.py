"""Causal language models: loading, scoring, distributions, adapters, weights."""

from fireopd.models.adapter import Adapter
from fireopd.models.distributions import DistributionComparison, TeacherDistributions
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
from fireopd.models.lora import LoRA
from fireopd.models.output_head import LogitTransform, OutputHead
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.models.weight_stream import WeightStream

__all__ = [
    "EMBEDDED",
    "Adapter",
    "CausalScorer",
    "DistributionComparison",
    "Dtype",
    "LoRA",
    "LogitTransform",
    "OutputHead",
    "TeacherDistributions",
    "WeightStream",
    "context_length",
    "disable_dropout",
    "encode_chats",
    "load_causal_lm",
    "load_config",
    "load_tokenizer",
    "resolve",
    "score_rollouts",
    "stop_tokens",
]

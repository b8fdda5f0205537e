"""Workloads: long-tailed response lengths, random models, and prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from fireopd.engines import HFEngine
from fireopd.models.loading import load_tokenizer
from fireopd.types import Prompt, Response

LAYERS = 4
"""Layers of a random model, as in the embedded models."""
TAIL = 16
"""Ratio of the maximum to the median response length."""
PROMPT = "12+34="
"""Prompt of recorded rollouts."""


def long_tailed(rows: int, median: int, seed: int) -> list[int]:
    """Return response lengths: log-normal with sigma 1, at least 2, at most 16 times the median."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (median * torch.randn(rows, generator=generator).exp()).round()
    return drawn.clamp(2, TAIL * median).int().tolist()


def random_model(
    folder: Path, *, width: int, vocabulary: int | None = None, layers: int = LAYERS, seed: int = 0
) -> str:
    """Write a Qwen3 with random weights and the tokenizer of the embedded models, and return its path.

    Args:
        folder: output folder.
        width: hidden size.
        vocabulary: vocabulary size; None for that of the embedded models.
        layers: number of decoder layers.
        seed: seed of the weights.
    """
    tokenizer = load_tokenizer("tiny/student", "student")
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary or len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 32),
            num_key_value_heads=max(1, width // 64),
            head_dim=32,
            max_position_embeddings=16384,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_prompts(path: Path, teachers: Sequence[str], rows: int) -> str:
    """Write a JSONL file of equal prompts with alternating teachers, and return its path."""
    lines = [json.dumps({"prompt": PROMPT, "teacher": teachers[row % len(teachers)]}) for row in range(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@dataclass
class RecordedEngine(HFEngine):
    """Returns random tokens of long-tailed lengths, the same for all engines with the same settings.

    Used to measure scoring and updates on lengths that small models do not generate.
    """

    median: int = 48
    """Median response length, tokens; the maximum is `max_response_length`."""
    rollouts: int = 0
    """Number of rollouts so far."""

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Return responses without special tokens."""
        assert self.model is not None, "setup() comes first"
        self.rollouts += 1
        generator = torch.Generator().manual_seed(self.rollouts)
        responses = []
        for length in long_tailed(len(prompts), self.median, self.rollouts):
            length = min(length, self.max_response_length)
            tokens = torch.randint(3, self.model.config.vocab_size, (length,), generator=generator)
            responses.append(Response(tuple(tokens.tolist()), (-2.0,) * length, finished=False))
        return responses

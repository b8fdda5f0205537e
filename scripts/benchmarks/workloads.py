"""What is worked on: a long-tailed mix of lengths, random models of a given size, prompts for any teachers."""

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
"""Of a random model, as many as the embedded ones have."""
TAIL = 16
"""By how much the longest response is longer than the median one."""
PROMPT = "12+34="
"""What the prompts of recorded rollouts ask."""


def long_tailed(rows: int, median: int, seed: int) -> list[int]:
    """Return the lengths of some responses: log-normal with sigma 1, at most 16 times the median, at least 2."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (median * torch.randn(rows, generator=generator).exp()).round()
    return drawn.clamp(2, TAIL * median).int().tolist()


def random_model(
    folder: Path, *, width: int, vocabulary: int | None = None, layers: int = LAYERS, seed: int = 0
) -> str:
    """Write a Qwen3 with random weights and the tokenizer of the embedded models, and return its path.

    Args:
        folder: to write into.
        width: hidden size.
        vocabulary: outputs of its head; none for that of the embedded models.
        layers: decoder layers.
        seed: of the weights.
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
    """Write a JSONL file of equal prompts, the teachers taking turns, and return its path."""
    lines = [json.dumps({"prompt": PROMPT, "teacher": teachers[row % len(teachers)]}) for row in range(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@dataclass
class RecordedEngine(HFEngine):
    """Answers at once with random tokens of long-tailed lengths, the same for every engine of the same settings.

    What comes after a rollout can so be measured on lengths that no small model would write.
    """

    median: int = 48
    """Median length of a response, tokens; the longest is `max_response_length`."""
    rollouts: int = 0
    """Rollouts that were asked for."""

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Response]:
        """Return responses without any special token."""
        assert self.model is not None, "setup() comes first"
        self.rollouts += 1
        generator = torch.Generator().manual_seed(self.rollouts)
        responses = []
        for length in long_tailed(len(prompts), self.median, self.rollouts):
            length = min(length, self.max_response_length)
            tokens = torch.randint(3, self.model.config.vocab_size, (length,), generator=generator)
            responses.append(Response(tuple(tokens.tolist()), (-2.0,) * length, finished=False))
        return responses

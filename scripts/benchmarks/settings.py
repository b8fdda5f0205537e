"""Settings of the benchmarks."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Settings:
    """Sizes of the workloads. The defaults are those of the published results; `quick()` returns those of a test."""

    pairs: int = 5
    """Interleaved measurements of each side of a ratio."""
    warm_up: int = 2
    """Unmeasured steps at the start, of each side."""
    threads: int = 1
    """Torch threads, the same for all sides."""
    rows: int = 64
    """Rows per step of the embedded job, as in configs/multi_teacher.yaml."""
    response_length: int = 64
    """Maximum response length of the embedded job, tokens, as in configs/multi_teacher.yaml."""
    mix_rows: int = 256
    """Rows per step on a long-tailed mix of lengths."""
    mix_median: int = 48
    """Median response length of the mix, tokens; the maximum is 16 times as long."""
    width: int = 128
    """Hidden size of the random models on the mix; like the embedded models, they have four layers."""
    vocabulary: int = 151_936
    """Vocabulary size of the model for the measurement of memory: that of Qwen3."""
    vocabulary_width: int = 320
    """Hidden size of that model, which has 53 million parameters."""
    memory_tokens: int = 8192
    """Tokens of the forward and backward pass for the measurement of peak memory."""
    time_tokens: int = 1024
    """Tokens of the forward and backward pass for the comparison of times with the plain implementation."""
    plugin_rows: int = 1024
    """Rows of the batch for the measurement of strategies."""
    plugin_length: int = 2048
    """Tokens per row of that batch."""
    decoding_rows: tuple[int, ...] = (64, 256)
    """Rows per rollout of the embedded student."""
    smollm2: Path | None = None
    """Folder written by scripts/prepare_smollm2.py; None to skip SmolLM2."""
    smollm2_rows: int = 32
    """Rows per rollout of SmolLM2."""
    smollm2_length: int = 96
    """Maximum response length of SmolLM2, tokens."""
    scaling_points: int = 5
    """Number of sizes of each scaling law."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for name in ("pairs", "threads", "rows", "mix_rows"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} must be at least 1, got {vars(self)[name]}")

    @classmethod
    def quick(cls, **changes: Any) -> "Settings":
        """Return the smallest settings that run all benchmarks, for tests; the results are meaningless."""
        sizes = {"pairs": 2, "warm_up": 1, "rows": 8, "response_length": 16, "mix_rows": 16, "mix_median": 8}
        sizes |= {"width": 32, "vocabulary": 4096, "vocabulary_width": 32, "memory_tokens": 2048, "time_tokens": 256}
        sizes |= {"plugin_rows": 32, "plugin_length": 64, "smollm2_rows": 4, "smollm2_length": 8, "scaling_points": 3}
        return cls(**({**sizes, "decoding_rows": (8,)} | changes))

    def prompts(self, rows: int) -> int:
        """Return the number of prompts of a run with this number of rows per step: for one extra step."""
        return rows * (self.warm_up + self.pairs + 1)

    @property
    def device(self) -> torch.device:
        """Accelerator if available, else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def to_json(self) -> dict[str, Any]:
        """Return the settings for the results file."""
        return {**asdict(self), "smollm2": self.smollm2 and self.smollm2.name, "device": self.device.type}

"""What the benchmarks are run with: sizes, and how often."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Settings:
    """Sizes of the workloads. The defaults are those of the published figures; `quick()` are those of a test."""

    pairs: int = 5
    """Interleaved measurements of each side of a ratio."""
    warm_up: int = 2
    """Steps before the first that counts, of each side."""
    threads: int = 1
    """Threads of torch, the same for all sides."""
    rows: int = 64
    """Rows of a step of the embedded job, as in configs/multi_teacher.yaml."""
    response_length: int = 64
    """Longest response of the embedded job, tokens, as in configs/multi_teacher.yaml."""
    mix_rows: int = 256
    """Rows of a step on a long-tailed length mix."""
    mix_median: int = 48
    """Median length of its responses, tokens; the longest are 16 times as long."""
    width: int = 128
    """Hidden size of the random models that read the mix; they have four layers, as the embedded ones."""
    vocabulary: int = 151_936
    """Output layer of the model whose memory is measured: that of Qwen3."""
    vocabulary_width: int = 320
    """Hidden size of that model, 53 million parameters."""
    memory_tokens: int = 8192
    """Tokens that are scored and learnt from at once where peak memory is measured."""
    time_tokens: int = 1024
    """The same where time is measured against the plain way."""
    plugin_rows: int = 1024
    """Rows of the batch that strategies are timed on."""
    plugin_length: int = 2048
    """Tokens of each of its rows."""
    decoding_rows: tuple[int, ...] = (64, 256)
    """Rows of a rollout of the embedded student."""
    smollm2: Path | None = None
    """A folder made by scripts/prepare_smollm2.py, whose model is decoded too."""
    smollm2_rows: int = 32
    """Rows of a rollout of that model."""
    smollm2_length: int = 96
    """Longest response of that model, tokens."""
    scaling_points: int = 5
    """Sizes of each law of scaling."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for name in ("pairs", "threads", "rows", "mix_rows"):
            if vars(self)[name] < 1:
                raise ValueError(f"{name} must be at least 1, got {vars(self)[name]}")

    @classmethod
    def quick(cls, **changes: Any) -> "Settings":
        """Return the smallest settings that still measure everything, for a test: their figures mean nothing."""
        sizes = {"pairs": 2, "warm_up": 1, "rows": 8, "response_length": 16, "mix_rows": 16, "mix_median": 8}
        sizes |= {"width": 32, "vocabulary": 4096, "vocabulary_width": 32, "memory_tokens": 2048, "time_tokens": 256}
        sizes |= {"plugin_rows": 32, "plugin_length": 64, "smollm2_rows": 4, "smollm2_length": 8, "scaling_points": 3}
        return cls(**({**sizes, "decoding_rows": (8,)} | changes))

    def prompts(self, rows: int) -> int:
        """Return how many prompts a run of so many rows a step needs: for one step more than is measured."""
        return rows * (self.warm_up + self.pairs + 1)

    @property
    def device(self) -> torch.device:
        """The accelerator if there is one, else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def to_json(self) -> dict[str, Any]:
        """Return them for the file of results."""
        return {**asdict(self), "smollm2": self.smollm2 and self.smollm2.name, "device": self.device.type}

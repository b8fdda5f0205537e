"""Base class of verifiers that grade in worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fireopd.types import Prompt
from fireopd.verifiers.base import Verifier
from fireopd.verifiers.workers.pool import Pool, pool

__all__ = ["WALL_TIME_FACTOR", "WorkerVerifier"]

WALL_TIME_FACTOR = 10.0
"""Wall-clock seconds per second of `timeout`, since a worker may wait for a core."""


@dataclass(frozen=True)
class WorkerVerifier(Verifier):
    """Grades in worker processes. A response that exceeds time or memory or crashes the worker is incorrect."""

    module: ClassVar[str]
    """Module that a worker runs; see `Worker`."""

    timeout: float = 5.0
    """CPU time limit per response, seconds."""
    workers: int = 2
    """Number of worker processes; each takes about 100 MiB."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0, got {self.timeout}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return the reward of one response."""
        return self.grade([prompt], [response])[0].reward

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that a worker starts."""
        self._pool().check(key, type(self).__name__, "fix this, or use another verifier")

    def ask(self, questions: Sequence[Any]) -> list[Any | None]:
        """Return the answers of the workers, computed in parallel; None for a question without an answer."""
        return self._pool().ask_all([[question] for question in questions], self.timeout * WALL_TIME_FACTOR)

    def _pool(self) -> Pool:
        return pool(self.module, (str(self.timeout),), self.workers)

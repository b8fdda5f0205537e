"""What verifiers have in common that grade in worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fireopd.types import Prompt
from fireopd.verifiers.base import Verifier
from fireopd.verifiers.workers.pool import Pool, pool

SLACK = 10.0
"""Wall-clock seconds that a worker has for each second of `timeout`: it may have to wait for a core."""


@dataclass(frozen=True)
class WorkedVerifier(Verifier):
    """Grades in worker processes: a response that takes too long, too much memory, or the worker's life is wrong."""

    module: ClassVar[str]
    """What a worker runs; see `workers.py`."""

    timeout: float = 5.0
    """Seconds of computing time that one response may take."""
    workers: int = 2
    """Responses that are graded at a time; a worker takes some 100 MiB."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0, got {self.timeout}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return the grade of one response."""
        return self.grade([prompt], [response])[0].reward

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that a worker starts."""
        self._pool().check(key, type(self).__name__, "mend that, or grade with another verifier")

    def ask(self, questions: Sequence[Any]) -> list[Any | None]:
        """Return the workers' answers, several at a time; None for one that did not come."""
        return self._pool().ask_all([[question] for question in questions], self.timeout * SLACK)

    def _pool(self) -> Pool:
        return pool(self.module, (str(self.timeout),), self.workers)

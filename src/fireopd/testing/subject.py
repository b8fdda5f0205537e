"""Strategy under test, called as the training step calls it."""

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fireopd.filters import TrajectoryFilter
from fireopd.objectives import DirectObjective, Objective
from fireopd.testing.example_batches import example_batch
from fireopd.types import ScoredBatch
from fireopd.types.signals import SIGNALS
from fireopd.types.strategy import Strategy
from fireopd.weighters import TokenWeighter

__all__ = [
    "ADVANTAGE",
    "COEFFICIENT",
    "KEEP",
    "VERSIONS",
    "WEIGHT",
    "MethodSpec",
    "NoAnswerError",
    "SignalRecorder",
    "Subject",
    "at",
    "difference",
    "shown",
]

VERSIONS = (0, 100)
"""Policy versions of the test batches, far enough apart for schedules to change."""


@dataclass(frozen=True)
class MethodSpec:
    """A method of one kind of strategy, and the contract of its answer."""

    base: type[Strategy]
    """Base class of such strategies."""
    call: Callable[[Any, ScoredBatch], Tensor]
    """Calls the method on a batch."""
    dtype: torch.dtype
    """Dtype of the answer."""
    per_token: bool
    """True for answers of shape [N, L], False for [N]."""
    minimum: float
    """Lower bound of the answer's values."""
    name: str = ""
    """Name of the method in messages; empty if the strategy has one method only."""

    def shape_problem(self, answer: object, batch: ScoredBatch) -> str:
        """Return the problem of the answer's type, shape or dtype; empty if it has none."""
        shape = list(batch.tokens.shape if self.per_token else batch.finished.shape)
        meaning = "[N, L], one value per token" if self.per_token else "[N], one value per trajectory"
        if not isinstance(answer, Tensor):
            return f"returns a {type(answer).__name__}: return a tensor {meaning}"
        if list(answer.shape) != shape:
            return f"returns shape {list(answer.shape)} for a batch of shape {shape}: return {meaning}"
        allowed = (self.dtype, torch.float64) if self.dtype.is_floating_point else (self.dtype,)
        return "" if answer.dtype in allowed else f"returns {answer.dtype}: return {self.dtype}"


KEEP = MethodSpec(TrajectoryFilter, lambda f, b: f(b), torch.bool, per_token=False, minimum=0.0)
WEIGHT = MethodSpec(TokenWeighter, lambda w, b: w(b), torch.float32, per_token=True, minimum=0.0)
ADVANTAGE = MethodSpec(Objective, lambda o, b: o.advantage(b), torch.float32, per_token=True, minimum=-torch.inf)
COEFFICIENT = MethodSpec(
    DirectObjective,
    lambda o, b: o.coefficient(b),
    torch.float32,
    per_token=True,
    minimum=0.0,
    name="coefficient",
)


class NoAnswerError(Exception):
    """A strategy raises an error, or returns an answer of the wrong shape or dtype."""


@dataclass(frozen=True)
class Subject:
    """A strategy under test, with one of its methods."""

    strategy: Strategy
    """The strategy."""
    spec: MethodSpec
    """The method under test."""
    undeclared: frozenset[str] = frozenset()
    """Signals that it reads without declaring them; its batches include them, so that the other checks can run."""

    @property
    def name(self) -> str:
        """Name of the strategy's class."""
        return type(self.strategy).__name__

    @property
    def title(self) -> str:
        """Start of each report paragraph: the class, and the method if there are several."""
        return f"{self.name}.{self.spec.name}" if self.spec.name else self.name

    @property
    def declared(self) -> frozenset[str]:
        """The declared signals that exist."""
        return frozenset(self.strategy.requires) & SIGNALS.keys()

    @property
    def examples(self) -> list[ScoredBatch]:
        """Ordinary batches, one per policy version."""
        return [example_batch(seed=seed, policy_version=version) for seed, version in enumerate(VERSIONS)]

    @property
    def narrow(self) -> ScoredBatch:
        """An ordinary batch whose values cover a quarter of their ranges; used before the examples to detect state."""
        return example_batch(seed=7, scale=0.25)

    def copied(self) -> Strategy:
        """Return a copy of the strategy in its initial state."""
        return copy.deepcopy(self.strategy)

    def answer(self, batch: ScoredBatch, context: str = "an ordinary batch", of: Strategy | None = None) -> Tensor:
        """Return the answer for a batch.

        Args:
            batch: a batch with all signals.
            context: description of the batch in messages.
            of: strategy to call, whose state may change; a new copy if None.

        Raises:
            NoAnswerError: if the strategy raises an error, or the answer has the wrong shape or dtype.
        """
        strategy = self.copied() if of is None else of
        allowed = self.declared | self.undeclared
        view = replace(batch, signals={name: batch.signals[name] for name in allowed}, strategy=strategy)
        try:
            with torch.no_grad():
                answer = self.spec.call(strategy, view)
        except Exception as error:  # a strategy can raise anything
            raise NoAnswerError(f"raises {type(error).__name__} on {context}{self._line(error)}: {error}.") from error
        if problem := self.spec.shape_problem(answer, batch):
            raise NoAnswerError(f"{problem}, on {context}.")
        return answer

    def _line(self, error: Exception) -> str:
        """Return file and line of the strategy that raised an error, in brackets; empty if it was raised elsewhere."""
        module = inspect.getfile(type(self.strategy))
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module]
        return f" ({Path(module).name}, line {lines[-1]})" if lines else ""

    def signals_read(self, batch: ScoredBatch) -> frozenset[str]:
        """Return the signals of a batch that the strategy reads, declared or not."""
        recorder = SignalRecorder(batch.signals)
        with torch.no_grad():
            self.spec.call(self.copied(), replace(batch, signals=recorder))
        return frozenset(recorder.names)


class SignalRecorder(Mapping[str, Tensor]):
    """Mapping of signals that records the names of the signals read."""

    def __init__(self, signals: Mapping[str, Tensor]) -> None:
        """Wrap signals."""
        self.signals = signals
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        """Return a signal and record its name."""
        value = self.signals[name]
        self.names.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all signals."""
        return iter(self.signals)

    def __len__(self) -> int:
        """Return the number of signals."""
        return len(self.signals)


def difference(first: Tensor, second: Tensor, mask: Tensor) -> str:
    """Return a description of the first difference of two answers beyond rounding; empty if they agree.

    Args:
        first: [N] or [N, L].
        second: the same shape.
        mask: bool [N, L]. Tokens to compare, for answers of shape [N, L].
    """
    same = torch.isclose(first.double(), second.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
    differs = ~same & mask if first.dim() == 2 else ~same
    if not differs.any():
        return ""
    index = tuple(differs.nonzero()[0].tolist())
    return f"{at(index)}: {shown(first[index])} becomes {shown(second[index])}"


def at(index: tuple[int, ...]) -> str:
    """Return the description of an index of [N] or [N, L]."""
    return f"token {index[1]} of trajectory {index[0]}" if len(index) == 2 else f"trajectory {index[0]}"


def shown(number: Tensor) -> str:
    """Return a scalar as text for messages."""
    return str(number.item()) if number.dtype == torch.bool else f"{number.item():.6g}"

"""A strategy under examination, asked as the loop asks it."""

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

VERSIONS = (0, 100)
"""The policy versions at which strategies are asked: schedules move in between."""


@dataclass(frozen=True)
class Question:
    """What is asked of strategies of one kind, and what they have to answer."""

    of: type[Strategy]
    """The class that such strategies extend."""
    ask: Callable[[Any, ScoredBatch], Tensor]
    """Asks it."""
    dtype: torch.dtype
    """Type of the answer."""
    per_token: bool
    """Whether the answer is [N, L], one number for each token, rather than [N]."""
    smallest: float
    """The smallest value that an answer may hold."""
    method: str = ""
    """The method that is asked, for messages, where there are several."""

    def misshapen(self, answer: object, batch: ScoredBatch) -> str:
        """Return what is wrong with shape or type of an answer; empty if nothing is."""
        shape = list(batch.tokens.shape if self.per_token else batch.finished.shape)
        meaning = "[N, L], one number for each token" if self.per_token else "[N], one for each trajectory"
        if not isinstance(answer, Tensor):
            return f"returns a {type(answer).__name__}: return a tensor {meaning}"
        if list(answer.shape) != shape:
            return f"returns shape {list(answer.shape)} where the batch has {shape}: return {meaning}"
        return f"returns {answer.dtype}: return {self.dtype}" if answer.dtype != self.dtype else ""


KEEP = Question(TrajectoryFilter, lambda f, batch: f(batch), torch.bool, per_token=False, smallest=0.0)
WEIGHT = Question(TokenWeighter, lambda w, batch: w(batch), torch.float32, per_token=True, smallest=0.0)
ADVANTAGE = Question(Objective, lambda o, batch: o.advantage(batch), torch.float32, per_token=True, smallest=-torch.inf)
COEFFICIENT = Question(
    DirectObjective,
    lambda o, batch: o.coefficient(batch),
    torch.float32,
    per_token=True,
    smallest=0.0,
    method="coefficient",
)


class NoAnswerError(Exception):
    """A strategy raises an error instead of answering."""


@dataclass(frozen=True)
class Subject:
    """A strategy under examination."""

    strategy: Strategy
    """The strategy."""
    question: Question
    """What it is asked."""
    undeclared: frozenset[str] = frozenset()
    """Signals that it reads beside those that it declares; it is given them, so that the examination can go on."""

    @property
    def name(self) -> str:
        """The strategy's class."""
        return type(self.strategy).__name__

    @property
    def title(self) -> str:
        """What paragraphs begin with: the class, and the method that was asked if there are several."""
        return f"{self.name}.{self.question.method}" if self.question.method else self.name

    @property
    def declared(self) -> frozenset[str]:
        """The signals that it declares, as far as there are such."""
        return frozenset(self.strategy.requires) & SIGNALS.keys()

    @property
    def examples(self) -> list[ScoredBatch]:
        """Ordinary batches."""
        return [example_batch(seed=seed, policy_version=version) for seed, version in enumerate(VERSIONS)]

    @property
    def quiet(self) -> ScoredBatch:
        """An ordinary batch whose values take up a quarter of their ranges: it is to be met before the examples."""
        return example_batch(seed=7, loudness=0.25)

    def copied(self) -> Strategy:
        """Return a copy of the strategy, as it was when the examination began."""
        return copy.deepcopy(self.strategy)

    def answer(self, batch: ScoredBatch, place: str = "an ordinary batch", of: Strategy | None = None) -> Tensor:
        """Return the answer to a batch.

        Args:
            batch: holds every signal.
            place: what the batch is called in messages.
            of: is asked, and keeps what it will; a new copy of the strategy if it is not given.

        Raises:
            NoAnswerError: if the strategy raises, or answers something of another shape or type; says on what.
        """
        strategy = self.copied() if of is None else of
        allowed = self.declared | self.undeclared
        view = replace(batch, signals={name: batch.signals[name] for name in allowed}, strategy=strategy)
        try:
            with torch.no_grad():
                answer = self.question.ask(strategy, view)
        except Exception as error:  # a strategy can raise anything
            raise NoAnswerError(f"raises {type(error).__name__} on {place}{self._line(error)}: {error}.") from error
        if wrong := self.question.misshapen(answer, batch):
            raise NoAnswerError(f"{wrong}, on {place}.")
        return answer

    def _line(self, error: Exception) -> str:
        """Return the line of the strategy that an error came from, in brackets; empty if it came from elsewhere."""
        module = inspect.getfile(type(self.strategy))
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module]
        return f" ({Path(module).name}, line {lines[-1]})" if lines else ""

    def reads(self, batch: ScoredBatch) -> frozenset[str]:
        """Return the signals that it reads of a batch, declared or not."""
        recorder = Recorder(batch.signals)
        with torch.no_grad():
            self.question.ask(self.copied(), replace(batch, signals=recorder))
        return frozenset(recorder.read)


class Recorder(Mapping[str, Tensor]):
    """Signals that write down which of them are read."""

    def __init__(self, signals: Mapping[str, Tensor]) -> None:
        """Wrap some signals."""
        self.signals = signals
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        """Return a signal, and remember that."""
        value = self.signals[name]
        self.read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self.signals)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.signals)


def difference(first: Tensor, second: Tensor, mask: Tensor) -> str:
    """Return where two answers to the same trajectories differ by more than rounding, in words; empty if nowhere.

    Args:
        first: [N] or [N, L].
        second: the same.
        mask: bool [N, L]. Tokens that count, where answers are about tokens.
    """
    same = torch.isclose(first.double(), second.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
    wrong = ~same & mask if first.dim() == 2 else ~same
    if not wrong.any():
        return ""
    place = tuple(wrong.nonzero()[0].tolist())
    return f"{at(place)}: {shown(first[place])} becomes {shown(second[place])}"


def at(place: tuple[int, ...]) -> str:
    """Return an index of [N] or [N, L] in words."""
    return f"token {place[1]} of trajectory {place[0]}" if len(place) == 2 else f"trajectory {place[0]}"


def shown(number: Tensor) -> str:
    """Return a scalar as it is written in a message."""
    return str(number.item()) if number.dtype == torch.bool else f"{number.item():.6g}"

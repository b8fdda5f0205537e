"""Corruptions of the training prompts of another source, for test beds: wrong teachers and noise.

The corrupted prompts are drawn from a generator seeded with the seed of the run. Larger shares contain the prompts of
smaller ones. Validation prompts are unchanged. Corruptions can be nested.
"""

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fireopd.errors import UserError
from fireopd.prompts.base import PromptSource, PromptText
from fireopd.types import Prompt
from fireopd.verifiers import Verifier

__all__ = ["CorruptedPrompts", "JunkPrompts", "MisroutedPrompts"]


@dataclass(frozen=True)
class CorruptedPrompts(PromptSource):
    """Base class: a share of the training prompts of a source, corrupted."""

    source: PromptSource
    """Source of the prompts."""
    share: float
    """Share of the training prompts that is corrupted, in [0, 1]; rounded to a number of prompts of each task."""

    def __post_init__(self) -> None:
        """Check the range of the share."""
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], got {self.share}")

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        """Verifiers of the source."""
        return self.source.verifiers

    def training(self, seed: int) -> list[PromptText]:
        """Return the training prompts in the order of the source."""
        texts = self.source.training(seed)
        teachers = sorted({text.teacher for text in texts})
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            rows.setdefault(text.task, []).append(row)
        for task, own in rows.items():
            random.Random(f"{type(self).__name__}/{seed}/{task}").shuffle(own)
            for row in own[: round(self.share * len(own))]:
                texts[row] = self.corrupted(texts[row], teachers, random.Random(f"{seed}/{texts[row].id}"))
        return texts

    def validation(self) -> list[PromptText]:
        """Return the validation prompts of the source."""
        return self.source.validation()

    def order(self, prompts: Sequence[Prompt], seed: int, epoch: int) -> list[int]:
        """Return the order of the source."""
        return self.source.order(prompts, seed, epoch)

    @abstractmethod
    def corrupted(self, text: PromptText, teachers: Sequence[str], generator: random.Random) -> PromptText:
        """Return a corrupted prompt.

        Args:
            text: prompt of the source.
            teachers: names of the teachers of all training prompts.
            generator: generator of the prompt.
        """


@dataclass(frozen=True)
class MisroutedPrompts(CorruptedPrompts):
    """Routes a share of the training prompts of each task to a teacher of another task."""

    def corrupted(self, text: PromptText, teachers: Sequence[str], generator: random.Random) -> PromptText:
        """Return the prompt with another teacher, drawn uniformly.

        Raises:
            UserError: if the source has a single teacher.
        """
        others = [name for name in teachers if name != text.teacher]
        if not others:
            problem = f"the only teacher of the source is {text.teacher}"
            raise UserError("data.prompts.share", self.share, problem, "use a source with several teachers, or share 0")
        return replace(text, teacher=generator.choice(others))


@dataclass(frozen=True)
class JunkPrompts(CorruptedPrompts):
    """Replaces a share of the training prompts by noise: the characters of each message in random order.

    The reference answer is kept, so that responses are graded as wrong.
    """

    def corrupted(self, text: PromptText, teachers: Sequence[str], generator: random.Random) -> PromptText:
        """Return the prompt with shuffled characters, and without a reference solution."""
        if isinstance(text.content, str):
            content: str | list[dict[str, str]] = _shuffled(text.content, generator)
        else:
            content = [message | {"content": _shuffled(message["content"], generator)} for message in text.content]
        return replace(text, content=content, solution=None)


def _shuffled(text: str, generator: random.Random) -> str:
    return "".join(generator.sample(text, len(text)))

"""Mixtures of prompt sources."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fireopd.errors import UserError
from fireopd.prompts.base import PromptSource, PromptText
from fireopd.prompts.contract import checked_texts
from fireopd.types import Prompt
from fireopd.verifiers import Verifier

__all__ = ["MixedPrompts"]


@dataclass(frozen=True)
class MixedPrompts(PromptSource):
    """Prompts of several sources, each with its own teachers, tasks and verifier.

    Each batch follows the mixture weights as closely as possible, since the prompts of a source are spread evenly over
    an epoch. An epoch ends when the first source is exhausted; the next epoch continues the other sources at the next
    prompt, in a fixed cyclic order. As with any source, an incomplete last batch is dropped from an epoch.
    """

    sources: dict[str, PromptSource]
    """Sources by name."""
    weights: dict[str, float] | None = None
    """Relative number of prompts of each source in an epoch; null for all prompts of all sources in every epoch."""

    def __post_init__(self) -> None:
        """Check names and weights."""
        if not self.sources:
            raise ValueError("sources must not be empty, got {}")
        if any(isinstance(source, MixedPrompts) for source in self.sources.values()):
            raise ValueError("sources must not be mixtures themselves, got one in another; name all in one mixture")
        if self.weights is None:
            return
        if self.weights.keys() != self.sources.keys():
            raise ValueError(f"weights must name the sources {', '.join(self.sources)}, got {self.weights}")
        if not all(0 < weight < float("inf") for weight in self.weights.values()):
            raise ValueError(f"weights must be greater than 0, got {self.weights}")

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        """Verifier of each source that has one, by the name of the source."""
        found = {name: source.verifiers.get("") for name, source in self.sources.items()}
        return {name: verifier for name, verifier in found.items() if verifier is not None}

    def training(self, seed: int) -> list[PromptText]:
        """Return the training prompts of all sources."""
        return [text for name in self.sources for text in self._read(name, "training", lambda own: own.training(seed))]

    def validation(self) -> list[PromptText]:
        """Return the validation prompts of all sources."""
        return [text for name in self.sources for text in self._read(name, "validation", lambda own: own.validation())]

    def order(self, prompts: Sequence[Prompt], seed: int, epoch: int) -> list[int]:
        """Return the order of an epoch: the next prompts of each source, spread evenly with a random jitter.

        Raises:
            UserError: if an epoch contains no prompt of some source.
        """
        rows: dict[str, list[int]] = {name: [] for name in self.sources}
        for row, prompt in enumerate(prompts):
            rows[prompt.source].append(row)
        drawn: list[tuple[float, int]] = []
        for name, size in self._sizes({name: len(own) for name, own in rows.items()}).items():
            shuffled = list(rows[name])
            random.Random(f"{seed}/{name}").shuffle(shuffled)
            chosen = [shuffled[(epoch * size + place) % len(shuffled)] for place in range(size)]
            generator = random.Random(f"{seed}/{name}/{epoch}")
            generator.shuffle(chosen)
            drawn += [((place + generator.random()) / size, row) for place, row in enumerate(chosen)]
        return [row for _, row in sorted(drawn)]

    def _sizes(self, available: dict[str, int]) -> dict[str, int]:
        """Return the number of prompts of each source in an epoch."""
        for name, number in available.items():
            if not number:
                raise UserError(f"data.prompts.sources.{name}", name, "no training prompts", "add some, or remove it")
        if self.weights is None:
            return available
        scale = min(available[name] / weight for name, weight in self.weights.items())
        sizes = {name: int(scale * weight + 1e-9) for name, weight in self.weights.items()}  # against rounding errors
        for name, size in sizes.items():
            if not size:
                problem = f"an epoch of {sum(sizes.values())} prompts contains less than one of this source"
                raise UserError("data.prompts.weights", self.weights[name], problem, f"raise the weight of {name}")
        return sizes

    def _read(self, name: str, method: str, read: Callable[[PromptSource], list[PromptText]]) -> list[PromptText]:
        """Return the prompts of a source under its name; errors name the setting of the source in the mixture."""
        try:
            found = read(self.sources[name])
        except UserError as error:
            own, mixed = "data.prompts.", f"data.prompts.sources.{name}."
            key, remedy = (text.replace(own, mixed) for text in (error.key, error.remedy))
            raise UserError(key, error.value, error.problem, remedy) from error
        texts = checked_texts(f"data.prompts.sources.{name}", self.sources[name], method, found)
        return [replace(text, id=f"{name}/{text.id}", source=name) for text in texts]

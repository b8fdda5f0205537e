"""Prompts of the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt with the data that its response is scored and graded by."""

    tokens: tuple[int, ...]
    """Token ids, chat template applied."""
    teacher: str
    """Name of the teacher that scores the trajectory."""
    task: str
    """Task name in metrics and reports, for example `math`."""
    answer: str | None
    """Reference answer, for verifiers."""
    id: str
    """Unique within the source; part of the seed of the rollouts."""
    content: str | list[dict[str, str]] = ""
    """Text of the prompt, or chat messages before the template is applied."""
    template_options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the chat template."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further data for verifiers and the contexts of teachers."""
    solution: str | None = None
    """Reference solution, for the contexts of teachers."""
    source: str = ""
    """Name of the prompt source, whose verifier grades the responses; empty if there is only one source."""

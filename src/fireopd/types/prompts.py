"""What is asked of the student, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireopd.verifiers import Verifier


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the student is asked, ready for the engine."""

    tokens: tuple[int, ...]
    """Token ids, chat template applied."""
    teacher: str
    """Name of the teacher that judges the trajectory."""
    task: str
    """Name under which the row is reported, for example `math`."""
    answer: str | None
    """Reference answer, for verifiers."""
    id: str
    """Unique in its source; seeds the row's rollouts."""
    content: str | list[dict[str, str]] = ""
    """What the tokens say: text, or chat messages before the template was applied."""
    template_options: dict[str, Any] = field(default_factory=dict)
    """What the chat template was given beside the messages."""
    verifier: Verifier | None = None
    """Grades the responses; None where nobody asks for grades."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else a verifier may want to know."""
    source: str = ""
    """Name of the source in a mixture."""

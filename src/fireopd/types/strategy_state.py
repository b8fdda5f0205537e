"""The state of strategies that change while a run goes on, such as schedules and running quantiles.

Most strategies have none. One that does has `state_dict` and `load_state_dict`, and is saved in checkpoints.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """A strategy with a state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: numbers, strings, tensors, and dicts and lists of them."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        ...


def state_of(strategies: Mapping[str, object]) -> dict[str, Any]:
    """Return the states of those of the strategies that have one, by name."""
    return {name: part.state_dict() for name, part in strategies.items() if isinstance(part, Stateful)}


def load_state(strategies: Mapping[str, object], states: Mapping[str, Any]) -> None:
    """Give the strategies their states back.

    Raises:
        ValueError: if a state belongs to a strategy that is not there or has none.
    """
    for name, state in states.items():
        part = strategies.get(name)
        if not isinstance(part, Stateful):
            raise ValueError(f"the checkpoint holds a state of {name!r}, which is no strategy with a state here")
        part.load_state_dict(state)


def numbered(parts: list[Any]) -> dict[str, object]:
    """Return the parts of a composition by their place."""
    return {str(place): part for place, part in enumerate(parts)}

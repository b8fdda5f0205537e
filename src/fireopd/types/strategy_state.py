"""State of strategies that change during a run, such as schedules and running quantiles.

A strategy with state implements `state_dict` and `load_state_dict`, and is saved in checkpoints. Most have none.
"""

import copy
from collections.abc import Mapping
from dataclasses import field
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

__all__ = ["Remembers", "Stateful", "load_state", "numbered", "remembered", "state_of"]


@runtime_checkable
class Stateful(Protocol):
    """A strategy with state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: numbers, strings, tensors, and dicts and lists of them."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state."""
        ...


def remembered(**initial: Any) -> Any:
    """Return the field of a frozen dataclass that holds its state: attributes that change, with their initial values.

    The field is no setting, and takes no part in comparison and `repr`.
    """
    return field(
        default_factory=lambda: SimpleNamespace(**copy.deepcopy(initial)), init=False, repr=False, compare=False
    )


class Remembers:
    """Saves and restores the field `state` of a strategy, declared by `remembered`."""

    state: SimpleNamespace
    """Values that change from call to call: numbers, strings, tensors, and dicts and lists of them."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state."""
        return copy.deepcopy(vars(self.state))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state.

        Raises:
            ValueError: if it has other names.
        """
        if state_dict.keys() != vars(self.state).keys():
            expected = ", ".join(sorted(vars(self.state)))
            raise ValueError(f"{type(self).__name__} has the state {expected}, got {', '.join(sorted(state_dict))}")
        vars(self.state).update(copy.deepcopy(state_dict))


def state_of(strategies: Mapping[str, object]) -> dict[str, Any]:
    """Return the states of the stateful strategies by name."""
    return {name: part.state_dict() for name, part in strategies.items() if isinstance(part, Stateful)}


def load_state(strategies: Mapping[str, object], states: Mapping[str, Any]) -> None:
    """Restore the states of strategies by name.

    Raises:
        ValueError: if a state belongs to a strategy that does not exist or is not stateful.
    """
    for name, state in states.items():
        part = strategies.get(name)
        if not isinstance(part, Stateful):
            raise ValueError(f"the checkpoint has a state of {name!r}, which is not a stateful strategy in this run")
        part.load_state_dict(state)


def numbered(parts: list[Any]) -> dict[str, object]:
    """Return the parts of a composition by their index."""
    return {str(index): part for index, part in enumerate(parts)}

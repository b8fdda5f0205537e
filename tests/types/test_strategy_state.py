"""State of strategies: frozen dataclasses with attributes that change, saved and restored."""

import copy
from dataclasses import FrozenInstanceError, dataclass
from types import SimpleNamespace

import pytest
import torch
from helpers.fakes import scored_batch

from fireopd.types.strategy_state import Remembers, Stateful, load_state, remembered, state_of
from fireopd.weighters import ProductOf, TokenWeighter


@dataclass(frozen=True)
class Counting(Remembers, TokenWeighter):
    step: float = 1.0
    state: SimpleNamespace = remembered(calls=0, seen=[])  # noqa: RUF009 - a field

    def __call__(self, batch):
        self.state.calls += 1
        self.state.seen.append(self.step)
        return torch.full(batch.tokens.shape, self.step * self.state.calls)


def test_a_frozen_strategy_remembers_and_resumes():
    first, other = Counting(2.0), Counting(2.0)
    assert isinstance(first, Stateful)
    first(scored_batch())
    assert (other.state.calls, other.state.seen) == (0, []), "instances share no state"
    assert first == other
    assert repr(first) == "Counting(step=2.0)"
    saved = state_of({"weighter": ProductOf([first])})
    first(scored_batch())
    assert saved == {"weighter": {"0": {"calls": 1, "seen": [2.0]}}}, "a saved state does not change any more"
    load_state({"weighter": ProductOf([other])}, saved)
    assert torch.equal(first(scored_batch()) * 2, other(scored_batch()) * 3)
    with pytest.raises(FrozenInstanceError):
        first.step = 3.0
    assert copy.deepcopy(first).state is not first.state


def test_a_state_of_other_names_is_refused():
    with pytest.raises(ValueError, match="Counting has the state calls, seen, got mean"):
        Counting().load_state_dict({"mean": 1.0})

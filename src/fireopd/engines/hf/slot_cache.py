"""The key-value cache of rows that are decoded together: a row that ends leaves its slot to another.

All rows end in the same column, so that a step writes one column; a shorter row begins further to the right. Memory is
set aside for more columns than are in use, so that a token costs no copy of those before it; and a row that ends costs
the copy of one other row, the last one, into its slot.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

LEAST_ROOM = 64
"""Columns that are set aside beyond those in use, at least."""


def room_beyond(columns: int) -> int:
    """Return how many columns are set aside beyond those in use: half as many, lest memory be moved too often."""
    return max(LEAST_ROOM, columns // 2)


def keeps_more(config: PreTrainedConfig) -> bool:
    """Return whether models of a configuration keep more of earlier tokens than their keys and values."""
    try:
        layers = DynamicCache(config=config).layers
    except KeyError:  # a kind of layer that comes with the model
        return True
    return not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@dataclass
class Extent:
    """The part of the memory that is in use."""

    rows: int = 0
    """Slots in use: the first ones."""
    start: int = 0
    """Column in which the longest row begins."""
    end: int = 0
    """Column after the last token of every row."""


class SlotLayer(DynamicLayer):
    """The keys and values of one layer, [slots, heads, columns, d] each.

    A layer with a sliding window keeps all columns too, and is masked like any other cache without such layers.
    """

    def __init__(self, extent: Extent, states: tuple[Tensor, Tensor]) -> None:
        """Begin without memory.

        Args:
            extent: shared with the other layers.
            states: keys and values of the shape and type to come, but for the numbers of rows and columns.
        """
        super().__init__()
        self.extent = extent
        self.held = states[0][:0], states[1][:0]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write a column, [rows, heads, 1, d], and return all that are in use."""
        rows, start, end = self.extent.rows, self.extent.start, self.extent.end
        for held, states in zip(self.held, (key_states, value_states), strict=True):
            held[:rows, :, end] = states[:, :, 0]
        keys, values = (held[:rows, :, start : end + 1] for held in self.held)
        return keys, values

    def get_seq_length(self) -> int:
        """Return the number of columns in use."""
        return self.extent.end - self.extent.start

    def set_aside(self, slots: int, columns: int) -> None:
        """Bring what is in use to the beginning of new memory, which is 0: what is masked has to be finite."""
        rows, start, end = self.extent.rows, self.extent.start, self.extent.end
        made = [held.new_zeros(slots, held.shape[1], columns, held.shape[3]) for held in self.held]
        for held, new in zip(self.held, made, strict=True):
            new[:rows, :, : end - start] = held[:rows, :, start:end]
        self.held = made[0], made[1]

    def add(self, states: tuple[Tensor, Tensor], rows: Tensor) -> None:
        """Put some rows of other keys and values, no longer than the longest here, into the next slots."""
        slots, end = slice(self.extent.rows, self.extent.rows + len(rows)), self.extent.end
        for held, new in zip(self.held, states, strict=True):
            held[slots, :, : end - new.shape[2]] = 0  # an earlier row may have left what is not finite
            held[slots, :, end - new.shape[2] : end] = new[rows]

    def move(self, rows: Tensor, slots: Tensor) -> None:
        """Copy rows into other slots."""
        for held in self.held:
            used = held[:, :, self.extent.start : self.extent.end]
            used[slots] = used[rows]


class SlotCache(DynamicCache):
    """The keys and values of all layers."""

    def __init__(self) -> None:
        """Begin without memory."""
        super().__init__()
        self.extent = Extent()
        self.slots = self.columns = 0

    def make_room(self, slots: int) -> None:
        """Set memory aside for so many rows, if there is no column left to write."""
        if self.extent.end == self.columns:
            self._set_aside(slots)

    def add(self, prefilled: DynamicCache, rows: Tensor, slots: int) -> None:
        """Put rows of a cache, padded on the left and no longer than the longest here, into the next slots.

        Args:
            prefilled: the other cache.
            rows: int64 [K]. Its rows; one that comes several times fills as many slots.
            slots: rows to set memory aside for, where there is not enough.
        """
        states = [
            (cast(Tensor, layer.keys), cast(Tensor, layer.values))
            for layer in cast(list[DynamicLayer], prefilled.layers)
        ]
        if self.extent.rows == 0:
            self.layers = [SlotLayer(self.extent, own) for own in states]
            self.extent.start, self.extent.end, self.slots = 0, states[0][0].shape[2], 0
        if self.extent.rows + len(rows) > self.slots:
            self._set_aside(slots)
        for layer, own in zip(self.layers, states, strict=True):
            cast(SlotLayer, layer).add(own, rows)
        self.extent.rows += len(rows)

    def wrote(self) -> None:
        """Count a column that the layers have written."""
        self.extent.end += 1

    def keep(self, going_on: Tensor) -> Tensor:
        """Let go of rows, bool [rows]; return int64 [rows that go on], which row now stands in each slot."""
        order = torch.arange(len(going_on), device=going_on.device)
        number = int(going_on.sum())
        slots, rows = order[:number][~going_on[:number]], order[number:][going_on[number:]]
        if len(rows):
            for layer in self.layers:
                cast(SlotLayer, layer).move(rows, slots)
        order[slots] = rows
        self.extent.rows = number
        return order[:number]

    def trim(self, longest: int) -> None:
        """Leave out the columns before the longest row, which has so many tokens."""
        self.extent.start = self.extent.end - longest

    def _set_aside(self, slots: int) -> None:
        width = self.extent.end - self.extent.start
        self.slots, self.columns = slots, width + room_beyond(width)
        for layer in self.layers:
            cast(SlotLayer, layer).set_aside(self.slots, self.columns)
        self.extent.start, self.extent.end = 0, width

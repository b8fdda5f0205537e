"""Key-value cache with a slot per row, for continuous batching: a finished row frees its slot for a waiting prompt.

All rows end in the same column, so that a decoding step writes a single column; shorter rows start further to the
right. The cache allocates more columns than it uses, so that most steps copy nothing; when a row finishes, only the
last row is copied into its slot.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

__all__ = ["MIN_SPARE_COLUMNS", "Extent", "SlotCache", "SlotLayer", "has_non_kv_state", "spare_columns"]

MIN_SPARE_COLUMNS = 64
"""Minimum number of unused columns in an allocation."""


def spare_columns(columns: int) -> int:
    """Return the number of unused columns to allocate: half of the used ones, which bounds the number of copies."""
    return max(MIN_SPARE_COLUMNS, columns // 2)


def has_non_kv_state(config: PreTrainedConfig) -> bool:
    """Return whether models of a configuration cache more than the keys and values of earlier tokens."""
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, KeyError):  # model-specific configuration or layer type
        return True
    return not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@dataclass
class Extent:
    """Used part of the allocated memory."""

    rows: int = 0
    """Number of used slots; these are the first ones."""
    start: int = 0
    """First column of the longest row."""
    end: int = 0
    """Column after the last token of all rows."""


class SlotLayer(DynamicLayer):
    """Keys and values of one layer, [slots, heads, columns, d] each.

    A sliding-window layer also stores all columns and relies on the attention mask.
    """

    def __init__(self, extent: Extent, states: tuple[Tensor, Tensor]) -> None:
        """Create a layer without memory.

        Args:
            extent: used part, shared with the other layers.
            states: keys and values that define dtype, device, and shape except for rows and columns.
        """
        super().__init__()
        self.extent = extent
        self.buffers = states[0][:0], states[1][:0]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one column, [rows, heads, 1, d], and return the used keys and values."""
        rows, start, end = self.extent.rows, self.extent.start, self.extent.end
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, end] = states[:, :, 0]
        keys, values = (buffer[:rows, :, start : end + 1] for buffer in self.buffers)
        return keys, values

    def get_seq_length(self) -> int:
        """Return the number of used columns."""
        return self.extent.end - self.extent.start

    def reallocate(self, slots: int, columns: int) -> None:
        """Copy the used part to the start of new memory, filled with 0 since masked entries must be finite."""
        rows, start, end = self.extent.rows, self.extent.start, self.extent.end
        keys, values = (buffer.new_zeros(slots, buffer.shape[1], columns, buffer.shape[3]) for buffer in self.buffers)
        for old, new in zip(self.buffers, (keys, values), strict=True):
            new[:rows, :, : end - start] = old[:rows, :, start:end]
        self.buffers = keys, values

    def append(self, states: tuple[Tensor, Tensor], rows: Tensor) -> None:
        """Copy rows of other keys and values, no longer than the longest row here, into the next slots."""
        slots, end = slice(self.extent.rows, self.extent.rows + len(rows)), self.extent.end
        for buffer, new in zip(self.buffers, states, strict=True):
            buffer[slots, :, : end - new.shape[2]] = 0  # an earlier row may have left values that are not finite
            buffer[slots, :, end - new.shape[2] : end] = new[rows]

    def move(self, rows: Tensor, slots: Tensor) -> None:
        """Copy rows into other slots."""
        for buffer in self.buffers:
            used = buffer[:, :, self.extent.start : self.extent.end]
            used[slots] = used[rows]


class SlotCache(DynamicCache):
    """Keys and values of all layers."""

    def __init__(self) -> None:
        """Create a cache without memory."""
        super().__init__()
        self.extent = Extent()
        self.slots = self.columns = 0

    def reserve_column(self, slots: int) -> None:
        """Allocate memory for a number of rows if no unused column is left."""
        if self.extent.end == self.columns:
            self._reallocate(slots)

    def append(self, prefilled: DynamicCache, rows: Tensor, slots: int) -> None:
        """Copy rows of a left-padded cache, no longer than the longest row here, into the next slots.

        Args:
            prefilled: source cache.
            rows: int64 [K]. Source rows; a repeated row fills several slots.
            slots: number of slots to allocate if the memory does not suffice.
        """
        states = [
            (cast(Tensor, layer.keys), cast(Tensor, layer.values))
            for layer in cast(list[DynamicLayer], prefilled.layers)
        ]
        if self.extent.rows == 0:
            self.layers = [SlotLayer(self.extent, layer_states) for layer_states in states]
            self.extent.start, self.extent.end, self.slots = 0, states[0][0].shape[2], 0
        if self.extent.rows + len(rows) > self.slots:
            self._reallocate(slots)
        for layer, layer_states in zip(self.layers, states, strict=True):
            cast(SlotLayer, layer).append(layer_states, rows)
        self.extent.rows += len(rows)

    def advance(self) -> None:
        """Include the column that the layers have just written."""
        self.extent.end += 1

    def compact(self, active: Tensor) -> Tensor:
        """Drop finished rows and move active ones into their slots.

        Args:
            active: bool [rows]. False for finished rows.

        Returns:
            int64 [active rows]. Previous index of the row in each slot.
        """
        order = torch.arange(len(active), device=active.device)
        number = int(active.sum())
        slots, rows = order[:number][~active[:number]], order[number:][active[number:]]
        if len(rows):
            for layer in self.layers:
                cast(SlotLayer, layer).move(rows, slots)
        order[slots] = rows
        self.extent.rows = number
        return order[:number]

    def trim(self, longest: int) -> None:
        """Exclude the columns before the longest row, which has the given number of tokens."""
        self.extent.start = self.extent.end - longest

    def _reallocate(self, slots: int) -> None:
        width = self.extent.end - self.extent.start
        self.slots, self.columns = slots, width + spare_columns(width)
        for layer in self.layers:
            cast(SlotLayer, layer).reallocate(self.slots, self.columns)
        self.extent.start, self.extent.end = 0, width

"""Slot cache against separate rows as rows start, grow and finish."""

import random

import pytest
import torch
from transformers import AutoConfig, DynamicCache

from fireopd.engines.hf.slot_cache import MIN_SPARE_COLUMNS, SlotCache, has_non_kv_state

HEADS, WIDTH, LAYERS = 2, 3, 2


def states(layer, rows, columns):
    """Return random keys and values; a layer's keys are wider than its values."""
    return torch.randn(rows, HEADS, columns, WIDTH + layer), torch.randn(rows, HEADS, columns, WIDTH)


class Apart:
    """Reference cache: one list of columns per row."""

    def __init__(self):
        self.rows = []

    def column(self, cache):
        """Write a column to both caches and return the result of the slot cache by layer."""
        answers, new = [], [states(layer, len(self.rows), 1) for layer in range(LAYERS)]
        for layer in range(LAYERS):
            answers.append(cache.update(*new[layer], layer))
        for number, row in enumerate(self.rows):
            row.append([tuple(part[number, :, 0] for part in new[layer]) for layer in range(LAYERS)])
        return answers

    def compare(self, answers):
        longest = max(len(row) for row in self.rows)
        for layer, answer in enumerate(answers):
            for part in range(2):
                assert answer[part].shape[0] == len(self.rows)
                assert answer[part].shape[2] == longest
                assert answer[part].isfinite().all()
                for number, row in enumerate(self.rows):
                    expected = torch.stack([column[layer][part] for column in row], dim=1)
                    assert torch.equal(answer[part][number, :, longest - len(row) :], expected)


def prefill(lengths):
    """Return a left-padded cache and its rows as separate lists."""
    width, cache = max(lengths), DynamicCache()
    rows = [[[None] * LAYERS for _ in range(length)] for length in lengths]
    for layer in range(LAYERS):
        own = states(layer, len(lengths), width)
        for number, length in enumerate(lengths):
            for column in range(length):
                rows[number][column][layer] = tuple(part[number, :, width - length + column] for part in own)
        cache.update(*own, layer)
    return cache, rows


@pytest.mark.parametrize("seed", range(4))
def test_rows_stay_separate_as_others_start_and_finish(seed):
    torch.manual_seed(seed)
    chance, cache, apart, most = random.Random(seed), SlotCache(), Apart(), 6
    steps = 0
    while steps < 3 * MIN_SPARE_COLUMNS:
        free = most - len(apart.rows)
        if not apart.rows or (free and chance.random() < 0.3):
            longest = max((len(row) for row in apart.rows), default=9)
            given, rows = prefill([chance.randint(1, longest) for _ in range(chance.randint(1, free))])
            sources = torch.tensor([chance.randrange(len(rows)) for _ in range(free)])
            cache.append(given, sources, most)
            apart.rows += [list(rows[source]) for source in sources]
            cache.trim(max(len(row) for row in apart.rows))
        cache.reserve_column(most)
        assert cache.get_seq_length() == max(len(row) for row in apart.rows)
        assert cache.get_mask_sizes(1, 0) == (cache.get_seq_length() + 1, 0)
        apart.compare(apart.column(cache))
        cache.advance()
        steps += 1
        active = torch.tensor([chance.random() < 0.93 for _ in apart.rows])
        order = cache.compact(active)
        assert sorted(order.tolist()) == active.nonzero()[:, 0].tolist()
        apart.rows = [apart.rows[row] for row in order]
        if apart.rows:
            cache.trim(max(len(row) for row in apart.rows))


def test_stale_values_do_not_reach_other_rows():
    cache, given = SlotCache(), prefill([4, 4])[0]
    for layer in given.layers:
        layer.keys[1] = torch.nan
        layer.values[1] = torch.inf
    cache.append(given, torch.tensor([0, 1]), 2)
    assert cache.compact(torch.tensor([True, False])).tolist() == [0]
    cache.append(prefill([2])[0], torch.tensor([0]), 2)
    cache.reserve_column(2)
    for layer in range(LAYERS):
        for part in cache.update(*states(layer, 2, 1), layer):
            assert part.isfinite().all()


def test_the_cache_grows_geometrically():
    cache, (given, _) = SlotCache(), prefill([3, 2])
    cache.append(given, torch.tensor([0, 1]), 2)
    sizes = set()
    for _ in range(6 * MIN_SPARE_COLUMNS):
        cache.reserve_column(2)
        for layer in range(LAYERS):
            cache.update(*states(layer, 2, 1), layer)
        cache.advance()
        sizes.add(cache.columns)
    assert len(sizes) < 6
    assert max(sizes) < 1.6 * cache.get_seq_length()


@pytest.mark.parametrize(
    ("name", "more"),
    [("qwen3", False), ("llama", False), ("gemma3_text", False), ("mistral", False), ("gpt2", False), ("mamba", True),
     ("qwen3_next", True), ("jamba", True), ("falcon_h1", True), ("deepseek_v32", True), ("deepseek_v4", True)],
)  # fmt: skip
def test_models_that_cache_more_than_keys_and_values_are_detected(name, more):
    assert has_non_kv_state(AutoConfig.for_model(name)) is more

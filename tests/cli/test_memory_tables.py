"""Tables of a plan: units of sizes."""

import pytest

from fireopd.cli.memory_tables import memory_table, peak_lines, shown_size
from fireopd.training.memory_estimate import Part
from fireopd.training.memory_phases import Phase


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.0 MiB"),
        (1000, "< 0.1 MiB"),
        (2_400_000, "2.3 MiB"),
        (107_000_000, "102.0 MiB"),
        (107_400_000, "0.10 GiB"),
        (80 * 2**30, "80.00 GiB"),
    ],
)
def test_small_sizes_are_in_mib(size, text):
    assert shown_size(size) == text


def test_a_table_of_gib_names_other_units():
    phases = [Phase("update", "", (Part("weights", 2_400_000, ""), Part("cache", 2**30, "")))]
    shown = list(memory_table(phases, 2**31, "title").columns[1].cells)
    assert shown == ["2.3 MiB", "1.00", "1.00 *"]


def test_a_model_of_unknown_memory_is_named_below_the_total():
    parts = (Part("weights", 2**30, "1 B"), Part("teacher a", 0, "not included: Own does not give its memory"))
    parts += (Part("teacher b", 0, "shares the weights of the student"),)
    lines = peak_lines(Phase("update", "", parts))
    assert lines[1:] == ["  weights: 1.00 GiB = 1 B", "  teacher a: not included: Own does not give its memory"]

"""Errors of constructors are reported with the key of the setting; whole numbers stay whole numbers."""

from typing import Union

import pytest
from lightning import Callback

from fireopd.cli.entry_points import load_plugins
from fireopd.cli.method_files import MethodParser
from fireopd.cli.parser import Parser, instantiate
from fireopd.method import Method


def length_filter(**settings):
    return {"class_path": "LengthFilter", "init_args": settings}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_ratio": -1}, "model.clip_ratio: clip_ratio must be greater than 0, got -1.0"),
        (
            {"trajectory_filter": length_filter(min_tokens=-3)},
            "model.trajectory_filter.min_tokens: min_tokens must be at least",
        ),
        (
            {
                "trajectory_filter": {
                    "class_path": "AllOf",
                    "init_args": {"filters": [length_filter(), length_filter(min_tokens=-3)]},
                }
            },
            "model.trajectory_filter.filters[1].min_tokens: min_tokens must be at least",
        ),
    ],
)
def test_a_rejected_value_is_located_in_nested_settings(settings, message, capsys):
    load_plugins()
    parser = MethodParser(prog="test")
    parser.add_class_arguments(Method, "model")
    given = parser.parse_object({"model": settings})
    with pytest.raises(SystemExit) as stop:
        instantiate(parser, given)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("given", "expected"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)])
def test_a_whole_number_of_batches_is_no_fraction_of_all(given, expected):
    """Annotations `Optional[Union[int, float]]` may be in the other order, from a cache of typing."""

    class Limits(Callback):
        def __init__(self, limit: Union[float, int, None] = None) -> None:  # noqa: UP007
            self.limit = limit

    parser = Parser(prog="test")
    parser.add_lightning_class_args(Limits, "trainer")
    value = parser.parse_args(["--trainer.limit", given]).trainer.limit
    assert value == expected
    assert type(value) is type(expected)

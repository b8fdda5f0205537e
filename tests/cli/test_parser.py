"""Errors of the parser name key, value and remedy; whole numbers stay whole numbers."""

from typing import Union

import pytest
from lightning import Callback

from fireopd.cli.entry_points import load_plugins
from fireopd.cli.instantiation import instantiate
from fireopd.cli.method_files import MethodParser, check_training
from fireopd.cli.parser import Parser, explain_error
from fireopd.cli.setting_names import check_config_files
from fireopd.cli.training_cli import build
from fireopd.errors import UserError
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


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a:\n  b: 1\n c: 2\n", "not YAML: line 3, column 2"),
        ("- a\n", "the file is not a mapping of settings"),
        ("", "the file is empty"),
    ],
)
@pytest.mark.parametrize("form", ["--config={}", "--config {}"])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, part, form):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=part) as refused:
        check_config_files(["--seed_everything", "1", *form.format(file).split()])
    assert refused.value.value == str(file)


def test_choices_of_a_setting_are_listed():
    message = "Parser key \"model.dtype\":\n  Expected a typing.Literal['float32', 'bfloat16']. Got value: float3"
    expected = "model.dtype: 'float3': no choice of this setting. Use float32 or bfloat16."
    assert explain_error(message, ()) == expected


@pytest.mark.parametrize(
    ("key", "name", "part"),
    [
        ("trainer.callbacks", "RolloutRecoder", "Write RolloutRecorder."),
        ("trainer.callbacks", "LearningRateMonitr", "Write LearningRateMonitor."),
        ("model.objective", "EntropyWeighter", "EntropyWeighter is a TokenWeighter."),
        ("model.objective", "ReversKL", "Did you mean ReverseKL?"),
    ],
)
def test_a_class_with_a_similar_name_is_suggested(key, name, part):
    assert part in explain_error(f'Parser key "{key}":\n  - Expected a dot import path string: {name}', ())


def test_an_error_of_the_trainer_names_its_setting():
    with pytest.raises(UserError, match=r"trainer\.max_epochs: -5: .* Change this setting\."):
        build(["--config", "configs/opd.yaml", "--trainer.max_epochs", "-5"], train=False)


def test_a_signal_during_the_checks_of_a_method_is_no_error_of_its_file(monkeypatch):
    def stop(arguments, *, train):
        raise SystemExit(143)

    monkeypatch.setattr("fireopd.cli.method_files.build", stop)
    with pytest.raises(SystemExit) as stopped:
        check_training("opd", [])
    assert stopped.value.code == 143

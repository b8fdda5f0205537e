"""Errors of the trainer's settings, together with those of other settings."""

import pytest
from helpers.paths import ROOT

from fireopd.cli.trainer_errors import trainer_error
from fireopd.cli.training_cli import build

BASE = str(ROOT / "configs" / "opd.yaml")


def refusal(capsys, *arguments, train=False):
    """Return what a command prints that is refused with exit code 2."""
    with pytest.raises((SystemExit, ValueError)) as stop:
        build(["--config", BASE, *arguments], train=train)
    printed = capsys.readouterr().err
    assert getattr(stop.value, "code", 2) == 2
    return printed if isinstance(stop.value, SystemExit) else f"{printed}{stop.value}"


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (["--trainer.accelerator=tpuu", "--trainer.max_steps=-7"], ["trainer.accelerator", "trainer.max_steps"]),
        (["--trainer.devices=a"], ["trainer.devices"]),
        (["--trainer.strategy=ddpp"], ["trainer.strategy"]),
        (["--trainer.max_time=abc"], ["trainer.max_time"]),
        (["--trainer.precision=17"], ["trainer.precision"]),
    ],
)
def test_the_trainer_and_the_data_are_checked_in_one_run(capsys, options, keys, train):
    printed = refusal(capsys, "--data.batch_size=0", *options, train=train)
    assert "data.batch_size: batch_size must be at least 1" in printed
    for key in keys:
        assert f"fireopd: {key}: " in printed
    assert printed.count("fireopd: ") == 1 + len(keys)


def test_choices_of_a_setting_are_named(capsys):
    printed = refusal(capsys, "--trainer.precision=17")
    assert "trainer.precision: '17': no choice of this setting. Use 64 or 32 or 16 or " in printed
    assert " or bf16-mixed or " in printed


def test_abbreviated_options_are_refused(capsys):
    printed = refusal(capsys, "--trainer.max_step=5", "--data.batch_siz=4")
    assert "trainer.max_step: no such setting. Did you mean trainer.max_steps?" in printed
    assert "data.batch_siz: no such setting. Did you mean data.batch_size?" in printed


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("you must pass `devices` above 0", "trainer.devices"),
        ("no strategy like DeepSpeedStrategy", "trainer.strategy"),
        ("DeepSpeedStrategy is missing", "trainer.strategy"),
        ("something is automatically wrong", "trainer"),
        ("Timer(duration='1') is not valid", "trainer.max_time"),
    ],
)
def test_a_setting_is_found_by_its_name_or_its_value(reason, key):
    settings = {"accelerator": "auto", "devices": 0, "strategy": "deepspeed", "max_time": "1"}
    assert trainer_error(settings, TypeError(reason)).key == key

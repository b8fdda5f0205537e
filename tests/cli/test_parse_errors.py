"""All errors of a configuration in one run of a command."""

import pytest
import yaml
from helpers.paths import ROOT

from fireopd.cli.parse_errors import MOST, ParseError, parse_all, without
from fireopd.cli.setting_names import given_settings
from fireopd.cli.training_cli import build
from fireopd.errors import UserError

BASE = str(ROOT / "configs" / "opd.yaml")
OVERLAY = """
model:
  token_budget: many
  teachers:
    math: {class_path: HFTeecher, init_args: {path: tiny/math}}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: fast}}
  trajectory_filter: {class_path: TeacherLikelihoodFilter, init_args: {drop_fraktion: 0.2}}
data:
  batch_sise: 3
  engine: {class_path: HFEngine, init_args: {max_response_length: long}}
trainer: {max_epochs: 1.5}
"""
PLACES = {
    "model.token_budget",
    "model.teachers",
    "model.optimizer.lr",
    "model.trajectory_filter.drop_fraktion",
    "data.engine.max_response_length",
    "data.batch_sise",
    "trainer.max_epochs",
    "trainer.devicez",
}


def places(text):
    """Return the settings that lines of standard error name."""
    lines = [line.removeprefix("fireopd: ") for line in text.splitlines() if line.startswith("fireopd: ")]
    return [line.partition(": ")[0] for line in lines]


@pytest.mark.parametrize("train", [False, True])
def test_files_and_options_with_eight_errors_are_reported_in_one_run(tmp_path, capsys, train):
    (tmp_path / "bad.yaml").write_text(OVERLAY)
    with pytest.raises(SystemExit) as stop:
        build(["--config", BASE, f"--config={tmp_path / 'bad.yaml'}", "--trainer.devicez", "3"], train=train)
    assert stop.value.code == 2
    found = places(capsys.readouterr().err)
    assert len(found) == len(PLACES)
    assert set(found) == PLACES
    assert (tmp_path / "bad.yaml").read_text() == OVERLAY


def test_all_values_that_constructors_reject_are_reported(capsys):
    rejected = {"model.trajectory_filter.drop_fraction": "1.5", "model.token_weighter.alpha": "-1"}
    options = ["--model.trajectory_filter=TeacherLikelihoodFilter", "--model.token_weighter=EntropyWeighter"]
    options += [f"--{key}={value}" for key, value in (rejected | {"data.batch_size": "0"}).items()]
    with pytest.raises(SystemExit) as stop:
        build(["--config", BASE, *options], train=False)
    assert stop.value.code == 2
    assert places(capsys.readouterr().err) == [*rejected, "data.batch_size"]


def test_a_missing_setting_is_the_last_error(capsys):
    with pytest.raises(SystemExit):
        build(["--config", BASE, "--data.prompts=JSONLPrompts", "--model.token_budget=many"], train=False)
    assert places(capsys.readouterr().err) == ["model.token_budget", "data.prompts.train"]


def test_a_sound_configuration_is_parsed_once():
    calls = []
    assert parse_all(lambda arguments: calls.append(arguments) or 7, ["--a=1"]) == 7
    assert calls == [["--a=1"]]


def failing(known, error=ParseError):
    """Return a parser that refuses all settings but the known ones, and requires `a`."""

    def parse(arguments):
        given = given_settings(arguments)
        for name in given:
            if name not in known:
                raise error(f"{name}: no such setting.")
        if "a" not in given:
            raise error("a: missing. Set it.")
        return given

    return parse


def test_what_is_missing_because_its_value_was_refused_is_no_error_of_its_own(capsys):
    def parse(arguments):
        given = given_settings(arguments)
        if given.get("a") == "bad":
            raise ParseError("a: 'bad': not of the type int.")
        return failing({"a", "b"})(arguments)

    with pytest.raises(SystemExit):
        parse_all(parse, ["--a=bad", "--c=1", "--b=2"])
    assert places(capsys.readouterr().err) == ["a", "c"]


def test_the_search_ends(capsys):
    with pytest.raises(SystemExit):
        parse_all(failing(set()), [f"--x{number}=1" for number in range(3 * MOST)])
    assert len(places(capsys.readouterr().err)) == MOST

    def stubborn(arguments):
        raise ParseError("nothing: that any argument gives")

    with pytest.raises(SystemExit):
        parse_all(stubborn, ["--a=1"])
    assert places(capsys.readouterr().err) == ["nothing"]


def test_user_errors_alone_are_raised():
    def parse(arguments):
        for key in given_settings(arguments):
            if key != "good":
                raise UserError(key, 1, "wrong", "fix it")

    with pytest.raises(UserError) as raised:
        parse_all(parse, ["--one=1", "--good=1", "--two=1"])
    assert [error.key for error in raised.value.each] == ["one", "two"]


CONTENT = """
seed_everything: 1
model.token_budget: 4
model:
  student: tiny/student
  teachers:
    math: {class_path: HFTeacher, init_args: {path: tiny/math, token_budget: 8}}
    code: HFTeacher
  objective: {class_path: PolicyGradient, init_args: {}}
trainer:
  callbacks: [Summary, {class_path: Curves, init_args: {every: 2, other: 3}}, Progress]
"""


@pytest.mark.parametrize(
    "place",
    [
        "model",
        "model.token_budget",
        "model.student",
        "model.teachers",
        "model.teachers.math",
        "model.teachers.math.token_budget",
        "model.teachers.code",
        "model.objective",
        "trainer.callbacks",
        "trainer.callbacks[1].every",
        "data.batch_size",
        "data.engine",
        "data.engine.batch_size",
        "data.prompts",
    ],
)
def test_a_setting_and_nothing_else_is_removed(tmp_path, place):
    (tmp_path / "file.yaml").write_text(CONTENT)
    engine = "{class_path: HFEngine, init_args: {batch_size: 3, dtype: float32}}"
    arguments = ["--config", str(tmp_path / "file.yaml"), "--data.batch_size", "4", f"--data.engine={engine}"]
    arguments += ["--data.prompts=TinyPrompts", "--data.prompts.share=1"]
    given = given_settings(arguments)

    def gone(key):
        return f"{key.removesuffix('.class_path')}.".startswith(f"{place}.") or key.startswith(f"{place}[")

    expected = {key: value for key, value in given.items() if not gone(key)}
    assert len(expected) < len(given)
    left = without(arguments, place, tmp_path / "copies")
    assert {key: value for key, value in given_settings(left).items() if value != []} == expected
    assert (tmp_path / "file.yaml").read_text() == CONTENT
    assert without(left, place, tmp_path / "more") is None


def test_a_setting_that_no_argument_gives_leaves_nothing_to_remove(tmp_path):
    (tmp_path / "file.yaml").write_text(CONTENT)
    assert without(["--config", str(tmp_path / "file.yaml")], "model.dtype", tmp_path / "copies") is None
    assert not (tmp_path / "copies").exists()
    assert yaml.safe_load(CONTENT)["seed_everything"] == 1

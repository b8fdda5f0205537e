"""All errors of a configuration in one run of a command."""

import pytest
from helpers.paths import ROOT

from fireopd.cli import parse_errors
from fireopd.cli.parse_errors import MOST, ParseError, report_all
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
EARLY = "fireopd: the search for errors ended early: there may be more."
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
    lines = [line for line in text.splitlines() if line.startswith("fireopd: ") and line != EARLY]
    return [line.split(": ")[1] for line in lines]


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


def test_errors_of_the_parser_do_not_hide_those_of_constructors(capsys):
    refused("--seed_everything=abc", "--data.batch_size=0", "--model.token_budget", "many", "--model.temperature=-1")
    found = {"seed_everything", "data.batch_size", "model.token_budget", "model.temperature"}
    assert set(places(capsys.readouterr().err)) == found


def test_each_wrong_value_of_a_setting_is_reported(tmp_path, capsys):
    (tmp_path / "file.yaml").write_text("model: {token_budget: lots}")
    refused("--config", tmp_path / "file.yaml", "--model.token_budget=many")
    assert places(capsys.readouterr().err) == ["model.token_budget"] * 2


def refused(*arguments, train=False):
    """Build a run that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        build(["--config", BASE, *map(str, arguments)], train=train)
    assert stop.value.code == 2


def test_a_missing_setting_is_an_error(capsys):
    refused("--data.prompts=JSONLPrompts", "--model.token_budget=many")
    assert places(capsys.readouterr().err) == ["model.token_budget", "data.prompts.train"]


def test_the_other_items_of_a_list_are_checked(capsys):
    callbacks = "[Progress, {class_path: Curves, init_args: {everyy: 3}}, Curvez, {class_path: Nope}]"
    refused(f"--trainer.callbacks={callbacks}", "--model.token_budget=many")
    text = capsys.readouterr().err
    assert set(places(text)) == {"trainer.callbacks", "trainer.callbacks[1].everyy", "model.token_budget"}
    assert "'Curvez'" in text
    assert "'Nope'" in text
    assert "'Progress'" not in text


def test_the_wrong_logger_of_a_list_is_named(capsys):
    refused("--trainer.logger=[CSVLogger, CSVLoger]")
    assert "trainer.logger: 'CSVLoger': no class of this name. Write CSVLogger." in capsys.readouterr().err


def test_a_list_that_a_file_extends_is_shortened(tmp_path, capsys):
    (tmp_path / "file.yaml").write_text("trainer: {callbacks+: [Curvez, {class_path: Curves, init_args: {everyy: 3}}]}")
    refused(f"--config={tmp_path / 'file.yaml'}", "--data.batch_size=0")
    assert {"trainer.callbacks", "data.batch_size"} <= set(places(capsys.readouterr().err))


def test_settings_of_a_class_at_fault_are_no_errors(tmp_path, capsys):
    (tmp_path / "file.yaml").write_text("model: {trajectory_filter: TeacherLikelihoodFilterr}")
    (tmp_path / "more.yaml").write_text("model: {trajectory_filter: {init_args: {drop_fraction: 0.2}}}")
    files = [f"--config={tmp_path / name}" for name in ("file.yaml", "more.yaml")]
    options = ["--model.optimizer=torch.optim.SGDD", "--model.optimizer.momentum=0.9", "--data.batch_size=0"]
    refused(*files, *options)
    found = places(capsys.readouterr().err)
    assert set(found) == {"model.trajectory_filter", "model.optimizer", "data.batch_size"}
    assert len(found) == 3


def test_one_wrong_teacher_leaves_the_others(tmp_path, capsys):
    teachers = "{math: {class_path: HFTeecher}, code: {class_path: HFTeacher, init_args: {path: tiny/code, tokens: 3}}}"
    (tmp_path / "file.yaml").write_text(f"model: {{teachers: {teachers}}}\ndata: {{batch_size: 0}}")
    refused(f"--config={tmp_path / 'file.yaml'}")
    assert set(places(capsys.readouterr().err)) == {"model.teachers", "model.teachers.code.tokens", "data.batch_size"}


@pytest.mark.parametrize("argument", ["--trainer.default_root_dir=2024-02-30", "--trainer.default_root_dir=0x_"])
def test_values_that_yaml_cannot_convert_are_text(argument, capsys):
    refused(argument, "--model.token_budget=many")
    assert places(capsys.readouterr().err) == ["model.token_budget"]


def test_files_of_other_folders_are_found(tmp_path, capsys):
    (tmp_path / "up").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "up" / "engine.yaml").write_text("class_path: HFEngine\n")
    (tmp_path / "own" / "run.yaml").write_text("data: {engine: ../up/engine.yaml, batch_sise: 3, batch_size: 0}\n")
    refused(f"--config={tmp_path / 'own' / 'run.yaml'}")
    text = capsys.readouterr().err
    assert set(places(text)) == {"data.batch_sise", "data.batch_size"}
    assert "/tmp" not in text


def test_without_a_folder_for_copies_the_first_error_is_reported(monkeypatch, capsys):
    def full():
        raise OSError("no space left on device")

    monkeypatch.setattr(parse_errors, "TemporaryDirectory", full)
    refused("--model.token_budget=many", "--data.batch_sise=1")
    assert places(capsys.readouterr().err) == ["model.token_budget"]


def test_an_option_that_extends_a_list_is_removed(capsys):
    callback = "{class_path: Curves, init_args: {everyy: 3}}"
    refused(f"--trainer.callbacks+={callback}", "--model.token_budget=many")
    found = places(capsys.readouterr().err)
    assert len(found) == 2
    assert "model.token_budget" in found


def test_words_and_options_without_a_value_are_errors_of_their_own(capsys):
    refused("foo", "--data.batch_sise=4", "--model.token_budget")
    found = places(capsys.readouterr().err)
    assert "data.batch_sise" in found
    assert "foo" in found
    assert any("model.token_budget" in place for place in found)


def test_files_that_a_configuration_names_are_found_next_to_its_copy(tmp_path, capsys):
    (tmp_path / "engine.yaml").write_text("class_path: HFEngine\ninit_args: {max_response_length: 16}\n")
    (tmp_path / "run.yaml").write_text("data: {engine: engine.yaml}\nmodel: {token_budget: many}\n")
    refused(f"--config={tmp_path / 'run.yaml'}")
    assert places(capsys.readouterr().err) == ["model.token_budget"]


@pytest.mark.parametrize("content", [b"a: [1,", b"\xff\xfe\x00"])
def test_a_file_that_is_no_yaml_is_named(tmp_path, capsys, content):
    (tmp_path / "bad.yaml").write_bytes(content)
    refused("--model.token_budget=many", f"--config={tmp_path / 'bad.yaml'}")
    text = capsys.readouterr().err
    assert places(text) == ["--config", "model.token_budget"]
    assert f"'{tmp_path / 'bad.yaml'}': not YAML" in text


def test_no_configuration_is_printed_in_place_of_errors(capsys):
    wrong = ["--model.token_budget=many", "--data.batch_sise=1"]
    for arguments in ([*wrong, "--print_config"], ["--print_config=skip_null", *wrong]):
        refused(*arguments)
        captured = capsys.readouterr()
        assert places(captured.err) == ["model.token_budget"], "the search would print one"
        assert "token_budget:" not in captured.out


def failing(known):
    """Return a check that refuses all settings but the known ones, and requires `a`."""

    def check(arguments):
        given = given_settings(arguments)
        for name in given:
            if name not in known:
                raise ParseError(f"{name}: no such setting.")
        if "a" not in given:
            raise ParseError("a: missing. Set it.")

    return check


def report(check, *arguments):
    """Report the errors that a check finds."""
    with pytest.raises((ParseError, UserError)) as first:
        check(arguments)
    report_all(first.value, arguments, check)


def test_what_fails_because_a_value_was_removed_is_no_error_of_its_own(capsys):
    def check(arguments):
        if given_settings(arguments).get("a") == "bad":
            raise ParseError("a: 'bad': not of the type int.")
        failing({"a", "b"})(arguments)

    with pytest.raises(SystemExit):
        report(check, "--a=bad", "--c=1", "--b=2")
    assert places(capsys.readouterr().err) == ["a", "c"]


def test_the_search_ends(capsys):
    with pytest.raises(SystemExit):
        report(failing(set()), *(f"--x{number}=1" for number in range(3 * MOST)))
    assert places(capsys.readouterr().err) == [f"x{number}" for number in range(MOST)]

    def stubborn(arguments):
        raise ParseError("nothing: that any argument gives")

    with pytest.raises(SystemExit):
        report(stubborn, "--a=1")
    assert places(capsys.readouterr().err) == ["nothing"]


def test_items_after_one_that_was_left_out_have_no_number(capsys):
    def check(arguments):
        given = str(given_settings(arguments))
        if "bad" in given:
            raise ParseError("trainer.callbacks: 'bad': no class of this name.")
        if "'trainer.callbacks[1].x'" in given:
            raise ParseError("trainer.callbacks[1].x: no such setting.")

    with pytest.raises(SystemExit):
        report(check, "--trainer.callbacks=[bad, a, {class_path: b, init_args: {x: 1}}]")
    assert places(capsys.readouterr().err) == ["trainer.callbacks", "trainer.callbacks[...].x"]


def test_another_failure_of_the_search_leaves_what_was_found(capsys):
    def check(arguments):
        if "x" in given_settings(arguments):
            raise ParseError("x: no such setting.")
        raise RuntimeError

    with pytest.raises(SystemExit) as stop:
        report(check, "--x=1")
    assert stop.value.code == 2
    assert places(capsys.readouterr().err) == ["x"]


def test_user_errors_alone_are_raised():
    def check(arguments):
        for key in given_settings(arguments):
            if key != "good":
                raise UserError(key, 1, "wrong", "fix it")

    with pytest.raises(UserError) as raised:
        report(check, "--one=1", "--good=1", "--two=1")
    assert [error.key for error in raised.value.each] == ["one", "two"]

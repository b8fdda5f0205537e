"""Settings, packages and files that are missing, together with the errors of what is there."""

import pytest
from helpers.paths import ROOT

from fireopd.cli.setting_names import check_config_files
from fireopd.cli.training_cli import build
from fireopd.errors import UserError

BASE = str(ROOT / "configs" / "opd.yaml")


def errors(capsys, *arguments):
    """Return setting and text of each error of arguments."""
    with pytest.raises((SystemExit, UserError)) as stop:
        build([str(argument) for argument in arguments], train=False)
    lines = capsys.readouterr().err.splitlines() if isinstance(stop.value, SystemExit) else str(stop.value).splitlines()
    texts = [line.removeprefix("fireopd: ") for line in lines if ": " in line]
    return [(text.partition(": ")[0], text) for text in texts]


def keys(capsys, *arguments):
    """Return the settings that errors name."""
    return [key for key, _ in errors(capsys, *arguments)]


def test_the_search_continues_after_a_setting_that_a_class_needs(tmp_path, capsys):
    (tmp_path / "file.yaml").write_text("model: {teachers: {chemistry: {class_path: HFTeacher}}}")
    options = ["--data.prompts=JSONLPrompts", "--data.batch_size=0"]
    found = keys(capsys, "--config", BASE, "--config", tmp_path / "file.yaml", *options)
    assert sorted(found) == ["data.batch_size", "data.prompts.train", "model.teachers.chemistry.path"]


@pytest.mark.parametrize(
    "callbacks", ["[EarlyStopping, {class_path: Curves, init_args: {every: 0}}]", "[EarlyStopping]"]
)
def test_an_item_of_a_list_that_misses_a_setting_hides_no_other_error(capsys, callbacks):
    found = keys(capsys, "--config", BASE, f"--trainer.callbacks={callbacks}", "--data.batch_size=0")
    assert {"trainer.callbacks[0].monitor", "data.batch_size"} <= set(found)
    assert len(found) == 2 + ("Curves" in callbacks)


def test_a_class_that_is_added_to_a_list_misses_a_setting(capsys):
    found = errors(capsys, "--config", BASE, "--trainer.callbacks+=EarlyStopping")
    place = "trainer.callbacks[6].monitor"  # after those of the file
    assert found == [(place, f"{place}: missing. Set it.")]


def test_a_file_that_is_missing_hides_no_other_error(tmp_path, capsys):
    found = errors(capsys, "--config", BASE, "--config", tmp_path / "no.yaml", "--data.batch_size=0")
    assert [key for key, _ in found] == ["--config", "data.batch_size"]
    assert f"'{tmp_path / 'no.yaml'}': the file does not exist. Give the path of a YAML file" in found[0][1]


@pytest.mark.parametrize("content", ["model: [", "- 1"])
def test_a_file_that_cannot_be_read_may_give_what_is_missing(tmp_path, capsys, content):
    (tmp_path / "bad.yaml").write_text(content)
    assert keys(capsys, "--config", tmp_path / "bad.yaml") == ["--config"]
    found = keys(capsys, "-c", BASE, "-c", tmp_path / "bad.yaml", "--data.batch_size=0", "--data.bach_size=1")
    assert sorted(found) == ["--config", "data.bach_size", "data.batch_size"]


@pytest.mark.parametrize("logger", ["{}", "[RunTensorBoardLogger, {}]"])
def test_a_logger_without_its_package_is_named(capsys, monkeypatch, logger):
    monkeypatch.setattr("fireopd.training.trackio_logger.find_spec", lambda name: None)
    given = f"--trainer.logger={logger.format('TrackioLogger')}"
    found = dict(errors(capsys, "--config", BASE, given, "--data.batch_size=0"))
    place = "trainer.logger[1]" if logger.startswith("[") else "trainer.logger"
    assert set(found) == {place, "data.batch_size"}
    assert "'TrackioLogger': needs a package: trackio is not installed: pip install trackio." in found[place]


def test_each_logger_of_a_list_is_checked(capsys):
    found = keys(capsys, "--config", BASE, "--trainer.logger=[CSVLogger, CSVLoger, CSVLogger]", "--data.batch_size=0")
    assert sorted(found) == ["data.batch_size", "trainer.logger", "trainer.logger[...].save_dir"]


def test_strategies_within_strategies_are_named_in_full(tmp_path, capsys):
    first = "{class_path: TeacherLikelihoodFilter, init_args: {drop_fraction: 7}}"
    second = "{class_path: SurpriseFilter, init_args: {threshold: abc}}"
    both = f"class_path: AllOf, init_args: {{filters: [{first}, {second}, Surprise]}}"
    (tmp_path / "file.yaml").write_text(f"model: {{trajectory_filter: {{{both}}}}}")
    found = errors(capsys, "--config", BASE, "--config", tmp_path / "file.yaml", "--data.batch_size=0")
    filters = "model.trajectory_filter.filters"
    assert {key for key, _ in found} == {
        filters,
        f"{filters}[...].drop_fraction",
        f"{filters}[1].threshold",
        "data.batch_size",
    }
    assert dict(found)[filters].startswith(f"{filters}: 'Surprise': no TrajectoryFilter of that name is installed.")


def test_each_unreadable_file_is_an_error(tmp_path, capsys):
    (tmp_path / "it's bad.yaml").write_text("model: [")
    (tmp_path / "empty.yaml").touch()
    files = [tmp_path / name for name in ("it's bad.yaml", "empty.yaml", "no'thing.yaml", "")]
    found = errors(capsys, "--config", BASE, *(f"-c{file}" for file in files), "--data.batch_size=0")
    assert [key for key, _ in found] == [*["--config"] * 4, "data.batch_size"]
    for file in files:
        assert any(str(file) in text for _, text in found)


def test_without_a_file_what_is_given_is_checked(capsys):
    found = keys(capsys, "--data.batch_size=0", "--trainer.max_steps=-7", "--model.objective=Foo")
    assert set(found) == {"model.teachers", "model.objective", "data.batch_size", "trainer.max_steps"}


def test_all_missing_settings_of_a_class_are_named(capsys):
    options = ["--trainer.plugins=lightning.pytorch.plugins.MixedPrecision", "--data.prompts=ReasoningGymPrompts"]
    found = keys(capsys, "--config", BASE, *options, "--data.batch_size=0")
    places = [f"trainer.plugins.{name}" for name in ("precision", "device")]
    assert sorted(found) == sorted([*places, "data.prompts.tasks", "data.prompts.teacher", "data.batch_size"])


def test_an_error_of_a_class_of_lightning_is_one_of_its_settings(capsys):
    callback = "{class_path: EarlyStopping, init_args: {monitor: a, mode: b}}"
    found = dict(errors(capsys, "--config", BASE, f"--trainer.callbacks=[{callback}]", "--data.batch_size=0"))
    assert set(found) == {"trainer.callbacks[0]", "data.batch_size"}
    assert "'EarlyStopping': `mode` can be min, max, got b" in found["trainer.callbacks[0]"]


def test_what_fits_the_items_that_were_left_out_is_no_error(capsys):
    value = "{class_path: FilterSequence, init_args: {filters: [KeepAll, Nope], switch_steps: [10]}}"
    assert keys(capsys, "--config", BASE, f"--model.trajectory_filter={value}") == ["model.trajectory_filter.filters"]


def test_teachers_within_a_teacher_are_named_in_full(capsys):
    value = "{mix: {class_path: MixtureTeacher, init_args: {teachers: {c: NopeTeacher}}}}"
    found = keys(capsys, "--config", BASE, f"--model.teachers={value}", "--data.batch_size=0")
    assert found == ["model.teachers.mix.teachers", "data.batch_size"]


BROKEN = """
import builtins
from dataclasses import dataclass
from fireopd.teachers import HFTeacher

@dataclass
class Broken(HFTeacher):
    error: str = "TypeError"

    def __post_init__(self):
        raise getattr(builtins, self.error)("no luck today")
"""


def test_the_code_of_a_plugin_that_raises_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "broken_teacher.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    teacher = "{{x: {{class_path: broken_teacher.Broken, init_args: {{path: tiny/math, error: {}}}}}}}"
    found = errors(capsys, "--config", BASE, f"--model.teachers={teacher.format('ValueError')}", "--data.batch_size=0")
    assert [key for key, _ in found] == ["model.teachers.x", "data.batch_size"]
    assert found[0][1] == "model.teachers.x: 'Broken': no luck today"
    for kind in (TypeError, ImportError):
        with pytest.raises(kind, match="no luck today") as raised:
            build(["--config", BASE, f"--model.teachers={teacher.format(kind.__name__)}"], train=False)
        assert raised.value.__notes__ == ["fireopd: model.teachers.x: Broken is constructed."]


def test_a_class_whose_wrong_setting_was_left_out_is_no_error(capsys):
    strategy = "--trainer.strategy=fireopd.distributed.fsdp.FSDP2Strategy"
    found = keys(capsys, "--config", BASE, strategy, "--trainer.strategy.save=1", "--data.batch_size=0")
    assert sorted(found) == ["data.batch_size", "trainer.strategy.save"]


def test_settings_of_an_added_item_are_left_out_with_it(capsys):
    added = ["--trainer.callbacks+=Curves", "--trainer.callbacks.every_n_steps=0"]
    found = keys(capsys, "--config", BASE, *added, "--data.batch_size=0")
    assert found == ["trainer.callbacks[6].every_n_steps", "data.batch_size"]


NEEDY = """
from lightning.pytorch.callbacks import Callback

class One(Callback):
    def __init__(self):
        raise ModuleNotFoundError("No module named 'one'")

class Two(Callback):
    def __init__(self):
        raise ModuleNotFoundError("No module named 'two'")
"""


def test_items_after_one_without_its_package_have_no_number(tmp_path, capsys, monkeypatch):
    (tmp_path / "needy.py").write_text(NEEDY)
    monkeypatch.syspath_prepend(tmp_path)
    found = keys(capsys, "--config", BASE, "--trainer.callbacks=[Curves, needy.One, needy.Two]")
    assert found == ["trainer.callbacks[1]", "trainer.callbacks[...]"]


def test_a_file_without_permission_is_an_error(tmp_path, capsys, monkeypatch):
    def refuse(path, *arguments, **settings):
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "secret.yaml"
    file.touch()
    monkeypatch.setattr("fireopd.cli.setting_names.Path.read_text", refuse)
    with pytest.raises(UserError, match=r"--config: '.*secret.yaml': cannot be read: Permission denied. Check its"):
        check_config_files(["--config", str(file)])

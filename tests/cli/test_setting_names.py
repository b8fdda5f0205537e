"""Full names of settings that jsonargparse names by their last part only."""

import pytest

from fireopd.cli.main import main
from fireopd.cli.parser import explain_error
from fireopd.cli.setting_names import alternatives, full_name, given_settings, place_of_missing

TEACHER = "{math: {class_path: HFTeacher, init_args: {path: tiny/math}}}"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {trajectory_filter: {class_path: TeacherLikelihoodFilter, init_args: {drop_fraction: 1}}}")
    return str(path)


def test_arguments_and_files_are_read(config, tmp_path):
    given = given_settings(
        ["--config", config, "--model.teachers", TEACHER, "--trainer.callbacks+=Summary", "x", f"--config={tmp_path}"]
    )
    assert given == {
        "model.trajectory_filter.class_path": "TeacherLikelihoodFilter",
        "model.trajectory_filter.drop_fraction": 1,
        "model.teachers.math.class_path": "HFTeacher",
        "model.teachers.math.path": "tiny/math",
        "trainer.callbacks[0]": "Summary",
    }
    assert full_name("path", given) == "model.teachers.math.path"
    assert full_name("other", given) == "other"
    assert alternatives("model.teachers.math.pth", given)[0] == "path"
    assert alternatives("data.nothing", given) == (None, "")


def test_a_class_replaces_another_one_however_the_two_are_written(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: {engine: {class_path: HFEngine, init_args: {top_k: 3}}}")
    given = given_settings(["--config", str(path), "--data.engine", "VLLMEngine"])
    assert given == {"data.engine.top_k": 3, "data.engine": "VLLMEngine"}
    assert "settings of VLLMEngine" in alternatives("data.engine.eagr", given)[1]
    given = given_settings(["--data.engine", "VLLMEngine", "--config", str(path)])
    assert given == {"data.engine.class_path": "HFEngine", "data.engine.top_k": 3}


@pytest.mark.parametrize(
    "form",
    [
        "{math: HFTeacher, code: HFTeachr}",
        "{code: {class_path: HFTeachr}}",
        "{math: fireopd.teachers.HFTeacher, code: HFTeachr}",
    ],
)
def test_an_unknown_class_within_braces_is_named(form, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=configs/multi_teacher.yaml", f"--model.teachers={form}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "model.teachers.code: 'HFTeachr': no Teacher of that name is installed. Did you mean HFTeacher?" in error


def test_a_missing_setting_is_that_of_the_class_that_requires_it():
    given = given_settings(["--data.prompts", "JSONLPrompts", "--model.teachers", "{a: {class_path: HFTeacher}}"])
    assert place_of_missing("train", given) == "data.prompts.train"
    assert place_of_missing("path", given) == "model.teachers.a.path"
    assert place_of_missing("path", given | {"model.teachers.a.path": "x"}) == "path"


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        (
            "Option 'drop_fractoin' is not accepted",
            ["--model.trajectory_filter.drop_fractoin=0.1"],
            "model.trajectory_filter.drop_fractoin: no such setting. Did you mean drop_fraction? Settings of "
            "TeacherLikelihoodFilter: drop_fraction, per_teacher.",
        ),
        (
            "Option 'learning' is not accepted",
            ["--model.optimizer=torch.optim.SGD", "--model.optimizer.learning=1"],
            "model.optimizer.learning: no such setting. Settings of SGD: lr, ",
        ),
        (
            "the following arguments are required: path",
            ["--model.teachers={a: {class_path: HFTeacher}}"],
            "model.teachers.a.path: missing. Set it.",
        ),
        (
            "Parser key \"lr\":\n  - Expected a <class 'float'>\n  - Expected a <class 'torch.Tensor'>\n"
            "  - Expected a dot import path string: abc\n  Given value type: <class 'str'>\n  Given value: abc",
            ["--model.optimizer.lr=abc"],
            "model.optimizer.lr: 'abc': not of the type float or Tensor. Give a value of this type.",
        ),
        (
            "Parser key \"trainer.logger\":\n  - Expected a <class 'bool'>\n  Given value: NestedArg(key='version',"
            " val='0')",
            ["--trainer.logger.version=0"],
            "trainer.logger: None: has no class whose version could be set. Name the class first: --trainer.logger.",
        ),
        (
            'Parser key "trainer.callbacks":\n  - Expected a dot import path string: RunChekpoint',
            ["--trainer.callbacks+=RunChekpoint"],
            "trainer.callbacks: 'RunChekpoint': no class of this name. Write RunCheckpoint",
        ),
    ],
)
def test_messages_name_the_setting_in_full(config, message, arguments, expected):
    assert explain_error(message, (), ["--config", config, *arguments]).startswith(expected)

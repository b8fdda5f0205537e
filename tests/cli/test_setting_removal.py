"""Removal of a setting from arguments and configuration files."""

from pathlib import Path

import pytest
import yaml

from fireopd.cli.setting_removal import without

FILE = """\
seed_everything: 1
model.token_budget: 4
model:
  student: tiny/student
  teachers:
    math: {class_path: HFTeacher, init_args: {path: tiny/math, token_budget: 8}}
    code: HFTeacher
trainer:
  callbacks: [Summary, {class_path: Curves, init_args: {every: 2}}, Progress]
"""
OPTIONS = [
    "--data.batch_size",
    "4",
    "--data.engine={class_path: HFEngine, init_args: {batch_size: 3, dtype: float32}}",
    "--trainer.callbacks+=[Curvez, {class_path: Nope}]",
]
TEACHER = "    math: {class_path: HFTeacher, init_args: {path: tiny/math, token_budget: 8}}\n"


@pytest.mark.parametrize(
    ("place", "value", "file", "options"),
    [
        ("model", None, "seed_everything: 1\n" + FILE[FILE.index("trainer") :], OPTIONS),
        ("model.token_budget", "4", FILE.replace("model.token_budget: 4\n", ""), OPTIONS),
        ("model.student", None, FILE.replace("  student: tiny/student\n", ""), OPTIONS),
        ("model.teachers.math", "HFTeacher", FILE.replace(TEACHER, ""), OPTIONS),
        ("model.teachers.math.token_budget", None, FILE.replace(", token_budget: 8", ""), OPTIONS),
        ("model.teachers.math.path", None, FILE.replace("path: tiny/math, ", ""), OPTIONS),
        ("trainer.callbacks[1].every", None, FILE.replace(", init_args: {every: 2}", ""), OPTIONS),
        ("trainer.callbacks", "Curvez", FILE, [*OPTIONS[:3], "--trainer.callbacks+=[{class_path: Nope}]"]),
        ("trainer.callbacks", "Nope", FILE, [*OPTIONS[:3], "--trainer.callbacks+=[Curvez]"]),
        ("trainer.callbacks", "Progress", FILE.replace(", Progress", ""), OPTIONS),
        ("trainer.callbacks", None, FILE[: FILE.index("trainer")], OPTIONS[:3]),
        ("data.batch_size", "4", FILE, OPTIONS[2:]),
        ("data.engine.batch_size", None, FILE, [*OPTIONS[:2], OPTIONS[2].replace("batch_size: 3, ", ""), OPTIONS[3]]),
        ("data.engine", "HFEngine", FILE, [*OPTIONS[:2], OPTIONS[3]]),
    ],
)
def test_a_setting_and_nothing_else_is_removed(tmp_path, place, value, file, options):
    (tmp_path / "file.yaml").write_text(FILE)
    left = without(["--config", str(tmp_path / "file.yaml"), *OPTIONS], place, tmp_path / "copies", value)
    assert left[0] == "--config"
    assert yaml.safe_load(Path(left[1]).read_text()) == yaml.safe_load(file)
    assert flat(left[2:]) == flat(options)
    assert (tmp_path / "file.yaml").read_text() == FILE


def flat(options):
    """Return names and values of options."""
    words = " ".join(options).replace("--", "\n--").split("\n")[1:]
    pairs = [word.strip().replace("=", " ", 1).split(" ", 1) for word in words]
    return [(name, yaml.safe_load(value)) for name, value in pairs]


def test_a_setting_that_no_argument_gives_leaves_nothing_to_remove(tmp_path):
    (tmp_path / "file.yaml").write_text(FILE)
    assert without(["--config", str(tmp_path / "file.yaml"), *OPTIONS], "model.dtype", tmp_path / "copies") is None
    assert not (tmp_path / "copies").exists()

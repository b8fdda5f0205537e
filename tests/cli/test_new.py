"""`fireopd new`: the package works outside the checkout; invalid names are rejected."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from helpers.paths import CONFIGS
from helpers.processes import in_a_process

from fireopd.cli import package_files
from fireopd.cli.commands import new
from fireopd.cli.main import main

CONFIG = CONFIGS / "multi_teacher.yaml"


@pytest.mark.parametrize("kind", new.KINDS)
def test_the_package_says_what_it_is_and_what_to_do_next(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["new", kind, f"lab_ideas.Novel{kind.capitalize()}"])
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        "lab-ideas/README.md",
        "lab-ideas/pyproject.toml",
        "lab-ideas/src/lab_ideas/__init__.py",
        f"lab-ideas/src/lab_ideas/{new.KINDS[kind].group}.py",
        f"lab-ideas/tests/test_novel_{kind}.py",
    ]
    for file in files:
        assert "$" not in Path(file).read_text(), file
    project, group = Path("lab-ideas/pyproject.toml").read_text(), new.KINDS[kind].group
    assert f'[project.entry-points."fireopd.{group}"]\nNovel{kind.capitalize()} = "lab_ideas.{group}:Novel' in project
    said = capsys.readouterr().out
    assert f"{new.KINDS[kind].a_noun} that works" in said
    assert new.KINDS[kind].option.replace("$name", f"Novel{kind.capitalize()}") in said


def run_tests(folders):
    sys.exit(pytest.main(["-p", "no:cacheprovider", *map(str, folders)]))


def test_the_tests_of_the_packages_pass(tmp_path):
    folders = [tmp_path / kind for kind in new.KINDS]
    for kind, folder in zip(new.KINDS, folders, strict=True):
        main(["new", kind, f"own_{kind}.Own{kind.capitalize()}", "--into", str(folder)])
    code, said = in_a_process(tmp_path, [folder / "src" for folder in folders], run_tests, folders)
    assert code == 0, said
    assert "33 passed" in said


def test_an_undeclared_read_ends_a_run_with_one_sentence(tmp_path, capfd, monkeypatch):
    main(["new", "weighter", "own_ideas.OwnWeighter", "--into", str(tmp_path / "own")])
    module = tmp_path / "own" / "src" / "own_ideas" / "weighters.py"
    module.write_text(module.read_text().replace('frozenset({"student_logprobs", ', "frozenset({"))
    monkeypatch.syspath_prepend(tmp_path / "own" / "src")
    import_module("own_ideas.weighters")  # what an entry point would do
    short = ["--data.prompts.num_training=16", "--data.prompts.num_validation=0", "--data.batch_size=8"]
    options = [f"--config={CONFIG}", "--model.token_weighter=OwnWeighter", f"--trainer.default_root_dir={tmp_path}/run"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *options, *short])
    assert stop.value.code == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert error.splitlines()[-1] == (
        "fireopd: model.token_weighter: 'OwnWeighter': reads 'student_logprobs' without declaring it. Add "
        "'student_logprobs' to its 'requires'; fireopd.testing.check_weighter tests the contract of OwnWeighter."
    )


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("MyWeighter", "not a package and a class. Use the form my_package.MyWeighter"),
        ("a.b.MyWeighter", "not a package and a class"),
        ("my-package.MyWeighter", "not a package and a class"),
        ("my_package.", "not a package and a class"),
        ("class.MyWeighter", "not a package and a class"),
        ("my_package.None", "not a package and a class"),
        ("my_package.my_weighter", "'my_weighter': not a class name. Start it with a capital letter"),
        ("my_package._Weighter", "'_Weighter': not a class name"),
        ("MyPackage.MyWeighter", "'MyPackage': not a package name. Use mypackage"),
        ("my_package.EntropyWeighter", "'EntropyWeighter': a class with this name already exists"),
        ("my_package.HFTeacher", "a class with this name already exists"),
        ("my_package.TokenWeighter", "a class with this name already exists"),
        ("torch.MyWeighter", "'torch': a package with this name already exists"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_written(strategy, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["new", "weighter", strategy])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").touch()
    for folder, message in [
        ("mine", "it already exists, and holds no pyproject.toml"),
        ("file", "it already exists"),
        ("file/mine", "cannot be written"),
    ]:
        with pytest.raises(SystemExit):
            main(["new", "filter", "my_package.MyFilter", "--into", str(tmp_path / folder)])
        assert f"--into: '{tmp_path}/{folder}': {message}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine"]


def test_nothing_is_written_by_halves(tmp_path, monkeypatch):
    monkeypatch.setitem(package_files.FILES, "tests/late.py", "$unknown_word")
    with pytest.raises(KeyError):
        main(["new", "filter", "my_package.MyFilter", "--into", str(tmp_path / "mine")])
    assert not list(tmp_path.iterdir())


PROJECT = """\
[project] # comment
name = "lab"
version = "0"

[project.entry-points."fireopd.weighters"] # ours
Old = "lab.weighters:Old"

[tool.other]
x = 1
"""


@pytest.fixture
def lab(tmp_path):
    """An existing package with a weighter."""
    folder = tmp_path / "lab"
    (folder / "src" / "lab").mkdir(parents=True)
    (folder / "src" / "lab" / "__init__.py").touch()
    (folder / "src" / "lab" / "weighters.py").write_text("Old = 1\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


def add(kind, name, folder):
    main(["new", kind, name, "--into", str(folder)])


def test_a_plug_in_is_added_to_an_existing_package(lab, capsys):
    add("weighter", "lab.NewWeighter", lab)
    add("verifier", "lab.NewVerifier", lab)
    added = {str(path.relative_to(lab)) for path in lab.rglob("*") if path.is_file()}
    modules = {"new_weighter.py", "verifiers.py", "weighters.py", "__init__.py"}
    tests = {"tests/test_new_weighter.py", "tests/test_new_verifier.py"}
    assert added == {"pyproject.toml", *tests, *(f"src/lab/{name}" for name in modules)}
    assert (lab / "src" / "lab" / "weighters.py").read_text() == "Old = 1\n"
    assert "from lab.new_weighter import NewWeighter" in (lab / "tests" / "test_new_weighter.py").read_text()
    text = (lab / "pyproject.toml").read_text()
    assert '# ours\nNewWeighter = "lab.new_weighter:NewWeighter"\nOld = "lab.weighters:Old"\n' in text
    table = '[project.entry-points."fireopd.verifiers"]\nNewVerifier = "lab.verifiers:NewVerifier"\n'
    assert text.endswith(f"x = 1\n\n{table}")
    said = capsys.readouterr().out
    assert f"pip install -e '{lab}'\n  pytest {lab}/tests/test_new_weighter.py" in said


@pytest.mark.parametrize(
    ("name", "project", "message"),
    [
        ("other.NewWeighter", PROJECT, "it already exists, and holds no package other"),
        ("lab.Old", PROJECT, "has an entry point of this name"),
        ("lab.Taken", PROJECT, "test_taken.py exists"),
        ("lab.Module", PROJECT, "weighters.py and module.py exist in"),
        ("lab.NewWeighter", "[project", "invalid TOML"),
        (
            "lab.NewWeighter",
            "[tool.poetry]\nname = 'lab'\n",
            'it has no static .* Add NewWeighter = "lab.new_weighter:N',
        ),
        ("lab.NewWeighter", "[project]\ndynamic = ['entry-points']\n", "it has no static"),
        (
            "lab.NewWeighter",
            "[project]\nentry-points = {'fireopd.weighters' = {Old = 'lab:Old'}}\n",
            "entry points are written in another form. Add NewWeighter",
        ),
    ],
)
def test_nothing_is_overwritten_and_nothing_is_added_by_halves(name, project, message, lab, capsys):
    (lab / "tests").mkdir()
    (lab / "tests" / "test_taken.py").touch()
    (lab / "src" / "lab" / "module.py").touch()
    (lab / "pyproject.toml").write_text(project)
    before = {path: path.read_text() for path in lab.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        add("weighter", name, lab)
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert {path: path.read_text() for path in lab.rglob("*") if path.is_file()} == before

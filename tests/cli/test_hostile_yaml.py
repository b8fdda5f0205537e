"""Configurations cannot run commands: only classes of the expected kind are instantiated."""

import json
import sys

import pytest
import yaml
from helpers.fakes import small_batch
from helpers.paths import CONFIGS

from fireopd.cli.main import main
from fireopd.cli.training_cli import build
from fireopd.training.recordings import write_scored

HARMFUL = """
from collections.abc import Callable
from pathlib import Path
import torch
def command(*args, **arguments) -> torch.optim.Optimizer:
    Path("called").touch()
def teacher(path: str = "") -> "fireopd.teachers.Teacher":
    Path("called").touch()
def warmup(*args) -> float:
    Path("called").touch()
    return 1.0
INSTANCE = type("Callable", (), {"__call__": warmup})()
class WithDefault(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer, rate: Callable[[int], float] = warmup) -> None:
        self.rate = rate
        super().__init__(optimizer)
class Other:
    def __init__(self, params=()):
        Path("called").touch()
class MySGD(torch.optim.SGD):
    pass
"""
"""Module with callables that leave a file if they are called, and with an optimizer."""
COMMAND = {"class_path": "os.system", "init_args": {"command": "touch called"}}
OUTPUT = {"class_path": "subprocess.getoutput", "init_args": {"cmd": "touch called"}}
EVAL = {"class_path": "builtins.eval", "init_args": {"source": "open('called', 'w')"}}
UNLINK = {"class_path": "pathlib.Path.unlink", "init_args": {"self": "called"}}
PARTIAL = {"class_path": "functools.partial", "init_args": {"func": "os.system"}}
FUNCTION = {"class_path": "harmful.command"}
OTHER = {"class_path": "harmful.Other"}
LAMBDA_RATE = "torch.optim.lr_scheduler.LambdaLR"
LAMBDA_CALLBACK = "lightning.pytorch.callbacks.LambdaCallback"

ANYWHERE = [COMMAND, OUTPUT, EVAL, UNLINK, PARTIAL, FUNCTION, OTHER]
PLACES = [
    "model.optimizer",
    "model.scheduler",
    "model.objective",
    "model.base",
    "data.prompts",
    "data.engine",
    "data.chat_template_options",
    "trainer.strategy",
    "trainer.profiler",
    "trainer.logger",
    "trainer.callbacks",
]


def nested(kind, **arguments):
    return {"class_path": kind, "init_args": arguments}


NESTED = [
    ("data.chat_template_options", {"x": OUTPUT}, "chat_template_options"),
    ("data.chat_template_options", {"x": [1, {"y": COMMAND}]}, "chat_template_options"),
    ("data.chat_template_options", {"x": {"y": [[OTHER]]}}, "chat_template_options"),
    ("data.chat_template_options", {"x": {"class_path": "no.such.Thing"}}, "chat_template_options"),
    ("model.scheduler", nested(LAMBDA_RATE, lr_lambda=COMMAND), "lr_lambda"),
    ("model.scheduler", nested(LAMBDA_RATE, lr_lambda=FUNCTION), "lr_lambda"),
    ("model.scheduler", nested(LAMBDA_RATE, lr_lambda="os.system"), "lr_lambda"),
    ("model.scheduler", nested(LAMBDA_RATE, lr_lambda="harmful.warmup"), "lr_lambda: 'warmup': not a class"),
    ("model.scheduler", nested(LAMBDA_RATE, lr_lambda=["harmful.warmup"]), "lr_lambda: 'warmup': not a class"),
    ("model.scheduler", nested(LAMBDA_RATE, lr_lambda="harmful.INSTANCE"), "lr_lambda: 'Callable': not a class"),
    ("model.scheduler", nested(LAMBDA_RATE, lr_lambda="math.exp"), "lr_lambda: 'exp': not a class"),
    ("model.scheduler", nested("harmful.WithDefault", rate="math.exp"), "model.scheduler.rate: 'exp': not a class"),
    (
        "trainer.callbacks",
        [nested(LAMBDA_CALLBACK, on_fit_start="harmful.warmup")],
        "trainer.callbacks[0].on_fit_start: 'warmup': not a class: a configuration cannot name functions",
    ),
    ("model.teachers", {"math": COMMAND}, "teachers"),
    ("model.sharding", OUTPUT, "'subprocess.getoutput': a configuration cannot name this module"),
    ("model.teachers", {"math": {"class_path": "harmful.teacher"}}, "teachers"),
    ("model.token_weighter", nested("ProductOf", weighters=[COMMAND]), "weighters"),
    ("model.trajectory_filter", nested("AllOf", filters=["LengthFilter", OTHER]), "filters"),
    ("data.prompts", nested("TinyPrompts", verifier=EVAL), "verifier"),
    ("data.prompts", nested("TinyPrompts", verifiers={"math": FUNCTION}), "verifiers"),
    ("trainer.callbacks", ["Curves", COMMAND], "trainer.callbacks"),
    ("trainer.callbacks", [nested(LAMBDA_CALLBACK, on_fit_start=OUTPUT)], "on_fit_start"),
    ("trainer.callbacks", [nested(LAMBDA_CALLBACK, on_fit_start=FUNCTION)], "trainer.callbacks[0].on_fit_start"),
    ("trainer.logger", [OUTPUT], "trainer.logger"),
    ("trainer.plugins", [COMMAND], "trainer.plugins"),
    ("trainer.plugins", [OTHER], "trainer.plugins"),
    ("model.optimizer", "os.system", "model.optimizer"),
    ("model.optimizer", "harmful.command", "model.optimizer: 'command': not an optimizer"),
    ("model.optimizer", "harmful.Other", "model.optimizer: 'harmful.Other': not an optimizer"),
    ("model.optimizer", "Nope", "model.optimizer: 'Nope': not an optimizer"),
    ("model.optimizer", nested("nosuch.Adam", lr=1.0), "'nosuch.Adam': the package nosuch is not installed"),
    ("model.scheduler", "torch.optim.SGD", "model.scheduler: 'torch.optim.SGD': not a learning-rate scheduler"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Change to a folder with the module `harmful`."""
    (tmp_path / "harmful.py").write_text(HARMFUL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("harmful", None)


@pytest.fixture
def refuse(folder, capsys):
    """Return a function that runs a command, which must be refused without a call, and returns the error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, error = capsys.readouterr()
        assert stop.value.code == 2
        assert "Traceback" not in out + error
        assert not (folder / "called").exists()
        return " ".join(error.split())

    return run


def write(path, key, value):
    group, name = key.split(".")
    path.write_text(yaml.safe_dump({group: {name: value}}))
    return path


ANY_CLASS = ("model.optimizer", "data.chat_template_options")
"""Places whose class can be of another package; all values are tried there, one of them at each other place."""
CASES = [(key, value) for key in ANY_CLASS for value in ANYWHERE]
CASES += [(key, ANYWHERE[number % len(ANYWHERE)]) for number, key in enumerate(PLACES) if key not in ANY_CLASS]


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{key}-{value['class_path']}" for key, value in CASES])
def test_a_setting_runs_no_callable(refuse, folder, key, value):
    hostile = write(folder / "hostile.yaml", key, value)
    assert key in refuse("check", "--config", CONFIGS / "multi_teacher.yaml", "--config", hostile)


@pytest.mark.parametrize(("key", "value", "part"), NESTED)
def test_a_nested_setting_runs_no_callable(refuse, folder, key, value, part):
    hostile = write(folder / "hostile.yaml", key, value)
    assert part in refuse("check", "--config", CONFIGS / "multi_teacher.yaml", "--config", hostile)


@pytest.mark.parametrize("value", [COMMAND, FUNCTION, OTHER], ids=lambda value: value["class_path"])
def test_options_and_print_config_run_no_callable(refuse, folder, capsys, value):
    config = str(CONFIGS / "multi_teacher.yaml")
    option = f"--model.optimizer={json.dumps(value)}"
    assert "model.optimizer" in refuse("fit", "--config", config, option)
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, option, "--print_config"])
    assert not (folder / "called").exists()


@pytest.mark.parametrize("value", [COMMAND, FUNCTION], ids=lambda value: value["class_path"])
def test_method_files_run_no_callable(refuse, folder, value):
    write_scored(folder / "a.safetensors", small_batch())
    method = write(folder / "method.yaml", "model.token_weighter", nested("ProductOf", weighters=[value]))
    assert "weighters" in refuse("replay", "a.safetensors", "--out", "out.safetensors", "--method", method)
    assert "weighters" in refuse("compare", "a.safetensors", "--methods", method, "--out", "out")
    config = CONFIGS / "multi_teacher.yaml"
    method = write(folder / "method.yaml", "model.optimizer", value)
    assert "model.optimizer" in refuse("compare", "--config", config, "--methods", method, "--out", "out")
    method = write(folder / "method.yaml", "data.chat_template_options", {"x": value})
    assert "chat_template_options" in refuse("compare", "--config", config, "--methods", method, "--out", "out")


@pytest.mark.parametrize("value", [OUTPUT, FUNCTION, OTHER], ids=lambda value: value["class_path"])
@pytest.mark.parametrize("option", ["chat_template_options", "verifier", "engine"])
def test_an_evaluation_runs_no_callable(refuse, folder, option, value):
    (folder / "b.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n')
    (folder / "e.yaml").write_text(yaml.safe_dump({option: {"x": [value]} if option[0] == "c" else value}))
    assert option in refuse("evaluate", "tiny/student", "--benchmark", "b.jsonl", "--out", "out", "--config", "e.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.optimizer", nested("torch.optim.AdamW", lr=0.1)),
        ("model.optimizer", nested("SGD", lr=0.1)),
        ("model.optimizer", nested("harmful.MySGD", lr=0.1)),
        ("model.scheduler", nested("torch.optim.lr_scheduler.CosineAnnealingLR", T_max=3)),
        ("model.scheduler", None),
        ("model.scheduler", nested("harmful.WithDefault")),
        ("data.chat_template_options", {"enable_thinking": False, "x": [1, 2.5, None, {"y": "z"}]}),
    ],
)
def test_legal_values_build(folder, key, value):
    legal = write(folder / "legal.yaml", key, value)
    cli = build([f"--config={CONFIGS / 'multi_teacher.yaml'}", f"--config={legal}"], train=False)
    if key == "data.chat_template_options":
        assert cli.datamodule.chat_template_options == value

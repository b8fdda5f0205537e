"""Fifty broken runs: `check` and `fit` report the same problems, before any model is loaded."""

import json
import shutil
from functools import partial

import pytest
import torch
from helpers.training import make_data, make_module
from torch.optim import lr_scheduler
from transformers import MambaConfig, T5Config

from fireopd.cli.training_cli import SafeTrainer
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.filters import AgreementFilter, AllOf, VerdictFilter
from fireopd.models.loading import EMBEDDED
from fireopd.objectives import ExtrapolatedReverseKL, GroupRewardReverseKL
from fireopd.prompts import Columns, JSONLPrompts, MixedPrompts, TinyPrompts
from fireopd.teachers import HFTeacher
from fireopd.training.run_checks import problems
from fireopd.weighters import AgreementWeighter, EntropyWeighter, ProductOf

ROWS = [{"problem": f"{n};+1", "answer": str(n + 1)} for n in range(40)]
NAMED = [{"problem": "1;+1", "uid": n % 3} for n in range(9)]
LEFT = [{"problem": "1;+1"}] * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with prompts and with models that differ from the embedded ones in one thing."""
    folder = tmp_path_factory.mktemp("broken")
    tables = {"good": ROWS, "named": NAMED, "left": LEFT, "empty": [], "long": [*ROWS, {"problem": "1" * 300}]}
    tables |= {"nothing": [{"text": "1"}], "plain": [{"prompt": "1;+1"}] * 9, "blank": [{"problem": " "}] * 9}
    for name, rows in tables.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "broken.jsonl").write_text("{")
    (folder / "file").touch()
    (folder / "hollow").mkdir()
    for name in ("headless", "stranger", "endless", "shapes", "states"):
        (folder / name).mkdir()
        for file in (EMBEDDED / "student").iterdir():
            if file.suffix in (".json", ".jinja"):
                shutil.copy(file, folder / name / file.name)
    change(folder / "headless" / "config.json", vocab_size=40)
    tokenizer = json.loads((folder / "stranger" / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["7"], vocabulary["8"] = vocabulary["8"], vocabulary["7"]
    (folder / "stranger" / "tokenizer.json").write_text(json.dumps(tokenizer))
    change(folder / "endless" / "tokenizer_config.json", eos_token=None)
    T5Config().save_pretrained(folder / "shapes")
    MambaConfig(vocab_size=48, hidden_size=16, num_hidden_layers=1).save_pretrained(folder / "states")
    (folder / "states" / "model.safetensors").touch()  # nothing loads it
    shutil.copytree(folder / "states", folder / "weightless")
    for file in (EMBEDDED / "student").iterdir():
        shutil.copy(file, folder / "weightless" / file.name)
    (folder / "weightless" / "model.safetensors").unlink()
    return folder


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def model(**settings):
    return {"model": settings}


def data(**settings):
    return {"data": settings}


def trainer(**settings):
    return {"trainer": settings}


def engine(**settings):
    return data(engine=HFEngine(**({"max_response_length": 8} | settings)))


def rows(name, **settings):
    return data(prompts=lambda folder: JSONLPrompts(folder / f"{name}.jsonl", **({"teacher": "math"} | settings)))


def taught(path, **settings):
    return model(teachers=lambda folder: {"math": HFTeacher(path.format(folder), **settings), "code": CODE})


CODE = HFTeacher("tiny/code")
VERDICT = {"trajectory_filter": VerdictFilter()}
MIXED = {"a": TinyPrompts({"math": "math"}, 16, 0), "b": TinyPrompts({"code": "code"}, 16, 0)}
BROKEN = {
    "clipping by the trainer": (trainer(gradient_clip_val=1.0), ["trainer.gradient_clip_val"]),
    "accumulation by the trainer": (trainer(accumulate_grad_batches=2), ["trainer.accumulate_grad_batches"]),
    "float16": (trainer(precision="16-true"), ["trainer.precision"]),
    "bfloat16": (trainer(precision="bf16-true"), ["trainer.precision"]),
    "float64": (trainer(precision="64-true"), ["trainer.precision"]),
    "student's dtype": (
        model(dtype="bfloat16", optimizer=partial(torch.optim.AdamW, lr=1e-6)),
        ["model.dtype"],
    ),
    "a file as folder": (trainer(default_root_dir=lambda folder: folder / "file"), ["trainer.default_root_dir"]),
    "negative rate": (model(optimizer=partial(torch.optim.AdamW, lr=-1.0)), ["model.optimizer"]),
    "rate of nan": (model(optimizer=partial(torch.optim.SGD, lr=torch.nan)), ["model.optimizer"]),
    "infinite decay": (model(optimizer=partial(torch.optim.AdamW, weight_decay=torch.inf)), ["model.optimizer"]),
    "closure": (model(optimizer=torch.optim.LBFGS), ["model.optimizer"]),
    "no period": (model(scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=0)), ["model.scheduler"]),
    "metric": (model(scheduler=lr_scheduler.ReduceLROnPlateau), ["model.scheduler"]),
    "short cycle": (
        model(scheduler=partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=1)),
        ["model.scheduler"],
    ),
    "temperature inf": (engine(temperature=torch.inf), ["data.engine.temperature"]),
    "greedy": (engine(temperature=0.0), ["data.engine.temperature"]),
    "nucleus": (engine(top_p=0.9), ["data.engine.top_p"]),
    "top k": (engine(top_k=5), ["data.engine.top_k"]),
    "overlap": (data(overlap=1) | model(importance_cap=None), ["data.overlap"]),
    "long response": (engine(max_response_length=250), ["data.prompts", *["model.teachers"] * 2]),
    "no such teacher": (taught("tiny/nope"), ["model.teachers.math.path"]),
    "no such folder of a teacher": (taught("./nowhere"), ["model.teachers.math.path"]),
    "folder in a folder": (taught("configs/nowhere"), ["model.teachers.math.path"]),
    "folder named as in the README": (taught("models/nowhere"), ["model.teachers.math.path"]),
    "folder without a model": (taught("{}/hollow"), ["model.teachers.math.path"]),
    "40 outputs for 48 tokens": (taught("{}/headless"), ["model.teachers.math.path"]),
    "other vocabulary": (taught("{}/stranger"), ["model.teachers.math.path"]),
    "translating teacher": (taught("{}/shapes"), ["model.teachers.math.path"]),
    "unnamed teacher": (model(teachers={"math": HFTeacher("tiny/math")}), ["model.teachers"]),
    "context and plain text": (
        taught("tiny/math", context=[{"role": "user", "content": "1"}]) | rows("plain"),
        ["model.teachers.math.context"],
    ),
    "no such student": (model(student="./nowhere") | data(student="./nowhere"), ["model.student"]),
    "translating student": (
        model(student="{}/shapes", teachers={"math": HFTeacher("tiny/math"), "code": CODE}) | data(student="{}/shapes"),
        ["model.student"],
    ),
    "student without weights": (
        model(student="{}/weightless") | data(student="{}/weightless"),
        ["model.student"],
    ),
    "teacher without weights": (taught("{}/weightless"), ["model.teachers.math.path"]),
    "recurrent student": (model(student="{}/states") | data(student="{}/states"), ["data.engine"]),
    "no end of a response": (model(student="{}/endless") | data(student="{}/endless"), ["model.student"]),
    "two students": (data(student="tiny/small"), ["data.student"]),
    "no base model": (model(objective=ExtrapolatedReverseKL()), ["model.base"]),
    "no such base model": (
        model(objective=ExtrapolatedReverseKL(), base=HFTeacher("tiny/nope")),
        ["model.base.path"],
    ),
    "unknown signal": (model(extra_signals=frozenset({"surprise"})), ["model.extra_signals"]),
    "single responses": (model(objective=GroupRewardReverseKL()), ["data.responses_per_prompt"]),
    "single responses, nested": (
        model(
            trajectory_filter=AllOf([AgreementFilter()]),
            token_weighter=ProductOf([EntropyWeighter(), AgreementWeighter()]),
        ),
        ["data.responses_per_prompt"],
    ),
    "rewards without answers": (rows("left") | model(**VERDICT), ["data.prompts"]),
    "rewards without a verifier": (rows("good", verifier=None) | model(**VERDICT), ["data.prompts.verifier"]),
    "no such file": (rows("nowhere"), ["data.prompts.train"]),
    "no JSON": (rows("broken"), ["data.prompts.train"]),
    "no column": (rows("nothing"), ["data.prompts.train"]),
    "no such column": (rows("good", columns=Columns(answer="solution")), ["data.prompts.train"]),
    "no text": (rows("blank"), ["data.prompts.train"]),
    "no teacher of a row": (rows("good", teacher=None), ["data.prompts.train"]),
    "no prompts": (rows("empty"), ["data.prompts"]),
    "equal ids": (rows("named", columns=Columns(id="uid")), ["data.prompts"]),
    "a long prompt": (rows("long"), ["data.prompts", "model.teachers.math: "]),
    "all held out": (rows("good", held_out=80), ["data.prompts.held_out"]),
    "few prompts": (data(batch_size=99), ["data.batch_size"]),
    "template": (data(chat_template_options={"return_dict": False}), ["data.prompts"]),
    "a mixture's weight": (data(prompts=MixedPrompts(MIXED, {"a": 1.0, "b": 1e-3})), ["data.prompts.weights"]),
}
"""Settings of a run, and the keys of its problems."""


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch):
    for place in ("training.student", "teachers.huggingface", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *arguments: pytest.fail("a model was loaded"))


def build(folder, tmp_path, given):
    """Return module, data module and trainer."""

    def made(settings):
        return {name: value(folder) if is_made(value) else named(value) for name, value in settings.items()}

    def is_made(value):
        return getattr(value, "__name__", "") == "<lambda>"

    def named(value):
        return value.format(folder) if isinstance(value, str) else value

    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": 1}
    quiet |= {"default_root_dir": tmp_path, "enable_progress_bar": False, "enable_model_summary": False}
    module = make_module(**made(given.get("model", {})))
    own = {"engine": HFEngine(max_response_length=8)} | made(given.get("data", {}))
    prompts = own.pop("prompts", None)
    source = make_data(**own)
    source.source = source.source if prompts is None else prompts
    return module, source, SafeTrainer(**(quiet | made(given.get("trainer", {}))))


def checked(module, source, trainer):
    """Return the messages of `fireopd check`."""
    module.trainer = source.trainer = trainer
    source.load()
    return [str(problem) for problem in problems(module.run_plan(source))]


def refused(module, source, trainer):
    """Return the messages of `fireopd fit`."""
    with pytest.raises(UserError) as caught:
        trainer.fit(module, datamodule=source)
    return [str(problem) for problem in caught.value.each]


@pytest.mark.parametrize("name", BROKEN)
def test_check_and_fit_report_the_same_problems(folder, tmp_path, name):
    given, keys = BROKEN[name]
    found = checked(*build(folder, tmp_path, given))
    assert found == refused(*build(folder, tmp_path, given))
    for key in keys:
        assert any(message.startswith(key) for message in found), found
    assert len({message.partition(":")[0] for message in found}) <= len(keys), found


def test_a_missing_checkpoint_is_reported_with_the_other_problems(folder, tmp_path):
    module, source, trainer = build(folder, tmp_path, BROKEN["nucleus"][0])
    with pytest.raises(UserError) as caught:
        trainer.fit(module, datamodule=source, ckpt_path=str(folder / "no.ckpt"))
    nucleus, missing = caught.value.each
    assert (nucleus.key, missing.value) == ("data.engine.top_p", str(folder / "no.ckpt"))


def test_problems_of_all_parts_are_reported_at_once(folder, tmp_path):
    parts = ["clipping by the trainer", "negative rate", "nucleus", "a long prompt", "few prompts"]
    parts += ["unknown signal", "no such base model"]
    given = {"model": {}, "data": {}, "trainer": {}}
    for name in parts:
        for part, settings in BROKEN[name][0].items():
            given[part] |= settings
    found = checked(*build(folder, tmp_path, given))
    assert found == refused(*build(folder, tmp_path, given))
    for name in parts:
        for key in BROKEN[name][1]:
            assert any(message.startswith(key) for message in found), (key, found)

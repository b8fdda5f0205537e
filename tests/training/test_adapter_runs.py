"""Runs with LoRA: what is trained and saved, agreement with the engine, exact resumes, shared teachers and exports."""

import copy
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.training import Notes, make_data, make_module
from lightning import Trainer
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fireopd.cli.main import main
from fireopd.cli.training_cli import build
from fireopd.errors import UserError
from fireopd.models import EMBEDDED, LoRA, load_causal_lm
from fireopd.models.base_model_scorer import BaseModelScorer
from fireopd.teachers import HFTeacher
from fireopd.training.memory_phases import memory_phases
from fireopd.training.resume_checks import check_resume
from fireopd.training.weight_sync import WeightSync

TOKENS = torch.arange(5, 40)[None]
STUDENT = str(EMBEDDED / "student")
ADAPTER = LoRA(rank=4)
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
QUIET |= {"accelerator": "cpu", "enable_checkpointing": False}
FIT = ["--config=configs/multi_teacher.yaml", "--model.adapter=LoRA"]


class Gaps(Notes):
    """Notes also the largest difference of engine and student on the probe of each sync."""

    def __init__(self):
        super().__init__()
        self.gaps = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        (sync,) = [callback for callback in trainer.callbacks if isinstance(callback, WeightSync)]
        self.gaps += [(logprobs - sync.previous.student).abs().max() for logprobs in sync.previous.engine.values()]


def module_of(adapter=ADAPTER, **settings):
    teachers = {"math": HFTeacher("tiny/math"), "code": HFTeacher(STUDENT)}
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    return make_module(**({"adapter": adapter, "teachers": teachers, "optimizer": optimizer} | settings))


def steps(module, folder, count, ckpt_path=None):
    """Train up to a step, write a checkpoint `<step>.ckpt` and return the notes."""
    notes = Gaps()
    trainer = Trainer(default_root_dir=folder, callbacks=[notes], max_steps=count, **QUIET)
    trainer.fit(module, make_data(24), ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / f"{count}.ckpt", weights_only=False)
    return notes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Module, notes and folder of a run of three steps."""
    folder = tmp_path_factory.mktemp("run")
    module = module_of()
    return module, steps(module, folder, 3), folder


def saved(run):
    return torch.load(run[2] / "3.ckpt", weights_only=True)


def test_only_the_adapter_is_trained_and_saved(run):
    module, _, _ = run
    base = load_causal_lm("tiny/student", "x", "float32").state_dict()
    frozen = {name: p for name, p in module.student.model.named_parameters() if not p.requires_grad}
    assert all(torch.equal(p, base[name.replace(".base_layer", "")]) for name, p in frozen.items())
    checkpoint = saved(run)
    factors = {f"student.model.{name}" for name in ADAPTER.shapes(module.student.model.config)}
    assert checkpoint["state_dict"].keys() == factors
    assert any(value.abs().max() > 0 for name, value in checkpoint["state_dict"].items() if "lora_B" in name)
    (optimizer,) = checkpoint["optimizer_states"]
    assert len(optimizer["state"]) == len(optimizer["param_groups"][0]["params"]) == len(factors)
    assert checkpoint["fireopd"]["student"] == "tiny/student"
    assert checkpoint["fireopd"]["adapter"]["settings"]["rank"] == 4


def test_engine_and_trainer_agree(run):
    _, notes, _ = run
    assert len(notes.gaps) == 3
    assert max(notes.gaps) <= 1e-4  # nats; logits of about 6 in float32
    assert max(notes.gaps) > 0, "merged and separate sums round differently"


def test_a_resumed_run_ends_with_the_same_bits(run, tmp_path):
    steps(module_of(), tmp_path, 1)
    resumed = module_of()
    steps(resumed, tmp_path, 3, ckpt_path=tmp_path / "1.ckpt")
    whole = run[0].state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.state_dict().items())
    old, new = saved(run), torch.load(tmp_path / "3.ckpt", weights_only=True)
    for place, state in old["optimizer_states"][0]["state"].items():
        assert all(torch.equal(value, new["optimizer_states"][0]["state"][place][key]) for key, value in state.items())


def test_a_teacher_that_is_the_student_without_adapter_shares_its_weights(run, tmp_path):
    module, notes, _ = run
    scorer = module.teachers["code"].scorer
    assert isinstance(scorer, BaseModelScorer)
    assert scorer.model is module.student.model
    shutil.copytree(STUDENT, tmp_path / "copy")
    other = module_of(teachers={"math": HFTeacher("tiny/math"), "code": HFTeacher(str(tmp_path / "copy"))})
    assert steps(other, tmp_path, 1).metrics[0]["train/loss"] == notes.metrics[0]["train/loss"]
    assert other.teachers["code"].scorer.model is not other.student.model
    own = HFTeacher("tiny/student")
    assert own.reads_student(STUDENT, "float32", adapter=True)
    assert not own.reads_student(STUDENT, "float32", adapter=False)
    assert not own.reads_student(STUDENT, "bfloat16", adapter=True)
    assert not own.reads_student("tiny/small", "float32", adapter=True)


def test_another_base_or_adapter_is_refused(run):
    path = run[2] / "3.ckpt"
    check_resume(path, module_of())
    for other, key in [
        ({"adapter": None}, "model.adapter"),
        ({"adapter": LoRA(rank=4, alpha=1.0)}, "model.adapter"),
        ({"adapter": LoRA(rank=8)}, "model.adapter"),
        ({"student": "tiny/small"}, "model.student"),
    ]:
        with pytest.raises(UserError, match=f"{key}: .* in the checkpoint"):
            check_resume(path, module_of(**other))
    changed = module_of()
    changed.base_fingerprint = "of other weights"
    with pytest.raises(UserError, match="model.student: 'tiny/student': its weights are not those"):
        changed.on_load_checkpoint(saved(run))


def test_exports_have_the_logits_of_the_student(run, tmp_path, capsys):
    module, _, folder = run
    main(["export", str(folder / "3.ckpt"), str(tmp_path / "merged")])
    main(["export", "--adapter", str(folder / "3.ckpt"), str(tmp_path / "adapter")])
    # Double precision: what is left is the rounding of the merged weights to float32.
    base = AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float64)
    student = copy.deepcopy(module.student.model).double()
    with torch.no_grad():
        expected, before = student(TOKENS).logits, base(TOKENS).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float64)(TOKENS).logits
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").double()
        rounding = torch.finfo(torch.float32).eps * expected.abs().max().item()
        torch.testing.assert_close(merged, expected, rtol=0, atol=16 * rounding)
        torch.testing.assert_close(loaded(TOKENS).logits, expected, rtol=0, atol=1e-12)
    assert (before - expected).abs().max() > 0.1
    assert loaded.peft_config["default"].base_model_name_or_path == str(Path(STUDENT).resolve())


def test_the_command_line_names_adapters_by_their_class(tmp_path):
    cli = build([*FIT, "--model.adapter.rank=2", f"--trainer.default_root_dir={tmp_path}"], train=False)
    assert cli.model.adapter == LoRA(rank=2)
    cli.prepare()
    plan = cli.model.run_plan(cli.datamodule)
    update = next(phase for phase in memory_phases(plan, 2**34) if phase.name == "update")
    parts = {part.name: part.size for part in update.parts}
    size = LoRA(rank=2).size(load_causal_lm("tiny/student", "x", "float32").config)
    assert (parts["student: gradients"], parts["student: optimizer"]) == (4 * size, 8 * size)
    assert parts["student: weights"] > 10 * parts["student: adapter"]


def test_without_peft_a_run_is_refused_before_it_starts(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SystemExit) as stop:
        main(["fit", *FIT, f"--trainer.default_root_dir={tmp_path}"])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "peft" in line]
    assert "Install it: pip install 'fireopd[lora]'" in line

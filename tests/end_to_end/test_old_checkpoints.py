"""Checkpoints that commit 5b6120e wrote, before modules moved: they resume and export."""

import csv
import math
import shutil

import pytest
import torch
from helpers.paths import CONFIGS, GOLDEN
from helpers.processes import Program
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from fireopd.models.loading import EMBEDDED
from fireopd.training.checkpoint_files import read_student

OLD = GOLDEN / "checkpoints_5b6120e"
KINDS = {
    "plain": [],
    "overlap": ["--data.overlap=1"],
    "sharded": [f"--config={CONFIGS}/hardware/fsdp.yaml", "--trainer.devices=2"],
}


@pytest.fixture
def folder(tmp_path):
    """A folder with a student of the recorded architecture and other weights."""
    student = tmp_path / "small_student"
    shutil.copytree(EMBEDDED / "student", student)
    shutil.copyfile(OLD / "config.json", student / "config.json")
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(student)).save_pretrained(student)
    return tmp_path


def fireopd(folder, *arguments, devices=1):
    run = Program(folder / "log", *arguments, folder=folder, devices=devices)
    assert run.wait() == 0, run.said


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumes_where_the_checkpoint_was_written(folder, kind):
    settings = [f"--config={CONFIGS}/multi_teacher.yaml", *KINDS[kind], "--model.student=./small_student"]
    settings += ["--data.prompts.num_training=16", "--data.prompts.num_validation=2", "--data.batch_size=4"]
    settings += ["--data.engine.max_response_length=12", "--trainer.max_steps=4", "--trainer.limit_val_batches=0"]
    settings += [f"--trainer.default_root_dir={folder}", f"--ckpt_path={OLD}/{kind}.ckpt"]
    fireopd(folder, "fit", *settings, devices=2 if kind == "sharded" else 1)
    with (folder / "version_0" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == [2, 3]
    # The cosine schedule of multi_teacher.yaml: the optimizer and its schedule come from the checkpoint.
    rates = [3e-4 * (1 + math.cos(math.pi * step / 150)) / 2 for step in (3, 4)]
    assert [float(row["train/learning_rate"]) for row in rows] == pytest.approx(rates, rel=1e-6)
    if kind == "overlap":
        assert [float(row["rollout/staleness"]) for row in rows] == [1, 1], "the pending rollout was not read"


@pytest.mark.parametrize("kind", KINDS)
def test_its_student_is_exported(folder, kind):
    fireopd(folder, "export", OLD / f"{kind}.ckpt", "exported")
    expected = read_student(OLD / f"{kind}.ckpt")[1]
    assert sum(value.numel() for value in expected.values()) == 2752 + 48 * 16, "the tied head is written twice"
    written = load_file(folder / "exported" / "model.safetensors")
    assert written
    assert all(torch.equal(expected[name], value) for name, value in written.items())

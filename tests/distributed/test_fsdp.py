"""DDP and FSDP2 with two processes against one process."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.processes import Program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireopd.distributed.fsdp import Sharding
from fireopd.errors import UserError
from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.teachers.base import leave_unsharded
from fireopd.training.checkpoint_files import read_student
from fireopd.training.trainer_checks import check_sharding

FSDP = "--config=configs/hardware/fsdp.yaml"
SAVING = ["--model.gradient_checkpointing=true", "--model.sharding={offload_teachers: true, offload_student: true}"]
PROCESSES = {"one": [], "ddp": ["--trainer.strategy=ddp"], "fsdp": [FSDP], "saving": [FSDP, *SAVING]}
CHECKPOINT = Path("version_0", "checkpoints", "last.ckpt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three steps of FiRe-OPD with each strategy."""
    return run_in_each_way(tmp_path_factory.mktemp("runs"), PROCESSES, [])


@pytest.fixture(scope="module")
def direct_runs(tmp_path_factory):
    """Three steps of a method that compares distributions for its weights and its loss."""
    processes = {name: PROCESSES[name] for name in ("one", "fsdp")}
    return run_in_each_way(tmp_path_factory.mktemp("direct"), processes, ["--config=configs/methods/tip.yaml"])


@pytest.fixture(scope="module")
def lean_runs(tmp_path_factory):
    """Three steps of a method whose student scores only kept rows, during the update."""
    processes = {name: PROCESSES[name] for name in ("one", "fsdp")}
    method = ["--config=configs/methods/fire_filter_only.yaml"]
    return run_in_each_way(tmp_path_factory.mktemp("lean"), processes, method)


def run_in_each_way(folder, processes, method):
    """Run three steps of plain SGD on 15 rows, 8 on one process and 7 on the other."""
    command = ["fit", "--config=configs/multi_teacher.yaml", *method, "--model.scheduler=null"]
    command += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.05", "--model.token_budget=300"]
    command += [
        "--data.engine.max_response_length=32",
        "--data.prompts.num_training=45",
        "--data.prompts.num_validation=3",
        "--data.batch_size=15",
    ]
    command += ["--trainer.callbacks=[RunCheckpoint, helpers.memory_recorder.Holdings]"]
    command += ["--trainer.val_check_interval=3"]
    for name, options in processes.items():
        devices = 1 if name == "one" else 2
        own = [*options, f"--trainer.devices={devices}", f"--trainer.default_root_dir={folder}/{name}"]
        run = Program(folder / f"{name}.log", *command, *own, devices=devices)
        assert run.wait() == 0, run.said[-3000:]
    return folder


def scalars(folder, tag):
    events = EventAccumulator(str(folder))
    events.Reload()
    return torch.tensor([event.value for event in events.Scalars(tag)])


@pytest.mark.parametrize("way", ["ddp", "fsdp", "saving"])
def test_loss_and_gradient_norm_equal_one_process(runs, way):
    for tag in ("train/loss", "train/grad_norm", "fire/keep_ratio", "train/reverse_kl", "val/avg_at_k"):
        expected = scalars(runs / "one" / "version_0", tag)
        assert len(expected) == (1 if tag.startswith("val") else 3)
        torch.testing.assert_close(scalars(runs / way / "version_0", tag), expected, rtol=1e-5, atol=1e-6)


def test_the_divergence_of_sharded_models_equals_one_process(direct_runs):
    for tag in ("train/loss", "train/grad_norm", "fire/weight_ess", "train/reverse_kl", "val/avg_at_k"):
        expected = scalars(direct_runs / "one" / "version_0", tag)
        assert expected.abs().min() > 0
        torch.testing.assert_close(scalars(direct_runs / "fsdp" / "version_0", tag), expected, rtol=1e-5, atol=1e-6)
    (_, one), (_, two) = (read_student(direct_runs / run / CHECKPOINT) for run in ("one", "fsdp"))
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=0, atol=1e-5)


def test_scores_from_the_update_are_gathered(lean_runs):
    for tag in ("train/loss", "train/grad_norm", "fire/importance_mean", "train/reverse_kl", "kl/math", "kl/code"):
        expected = scalars(lean_runs / "one" / "version_0", tag)
        torch.testing.assert_close(scalars(lean_runs / "fsdp" / "version_0", tag), expected, rtol=1e-5, atol=1e-6)
    (_, one), (_, two) = (read_student(lean_runs / run / CHECKPOINT) for run in ("one", "fsdp"))
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["ddp", "fsdp", "saving"])
def test_parameters_equal_one_process(runs, way):
    (name, one), (other, two) = (read_student(runs / run / CHECKPOINT) for run in ("one", way))
    start = load_causal_lm("tiny/student", "x", "float32").state_dict()
    assert name == other == "tiny/student"
    assert (runs / way / CHECKPOINT).is_dir() == (way != "ddp"), "a sharded checkpoint is a folder"
    assert one.keys() == two.keys() == start.keys()
    moved = 0.0
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=0, atol=1e-5)
        moved = max(moved, (expected - start[name]).abs().max().item())
    assert moved > 1e-3, "the parameters moved by more than the tolerance"


def test_each_process_holds_half_of_all_tensors(runs):
    """Plain SGD has no optimizer state; test_resume_sharded covers AdamW."""
    full = json.loads((runs / "one" / "holdings_0.json").read_text())
    for way in ("fsdp", "saving"):
        for rank in (0, 1):
            part = json.loads((runs / way / f"holdings_{rank}.json").read_text())
            for name in ("student", "gradients", "teachers"):
                assert 0.45 < part[name] / full[name] < 0.55, (way, rank, name)


def test_a_sharded_checkpoint_leaves_no_partial_files(runs):
    names = [path.name for path in (runs / "fsdp" / CHECKPOINT).parent.iterdir()]
    assert "last.ckpt" in names
    assert not [name for name in names if name.startswith(".")]


def test_leave_unsharded_does_nothing():
    scorer = CausalScorer(load_causal_lm("tiny/small", "x", "float32"))
    before = [id(parameter) for parameter in scorer.parameters()]
    leave_unsharded(scorer)
    assert [id(parameter) for parameter in scorer.parameters()] == before
    assert not scorer.sharded


def test_settings_compare_and_default_to_full_precision():
    assert Sharding() == Sharding(
        param_dtype=None, reduce_dtype="float32", offload_teachers=False, offload_student=False
    )


def test_settings_of_sharded_models_are_refused_where_models_are_not_sharded():
    whole, sharded = (SimpleNamespace(sharded=value, strategy="DDPStrategy") for value in (False, True))
    for settings in ({"param_dtype": "bfloat16"}, {"reduce_dtype": "bfloat16"}, {"offload_student": True}):
        check_sharding(Sharding(**settings), sharded)
        with pytest.raises(UserError, match=f"model.sharding.{next(iter(settings))}: .*DDPStrategy does not shard"):
            check_sharding(Sharding(**settings), whole)
    check_sharding(Sharding(offload_teachers=True), whole)

"""A run on two processes with sharded models that fails, is stopped, is killed, and goes on: as if nothing had been."""

import json
import signal

import pytest
import torch
from helpers.resume import curve
from helpers.resume_sharded import BACKGROUND, Pair, launch, step_of

from fireopd.models.loading import load_causal_lm
from fireopd.training import checkpoint_files

STEPS = 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same ten steps: without a break, and with three; two write checkpoints in the background."""
    folder = tmp_path_factory.mktemp("sharded")
    whole, broken = folder / "whole", folder / "broken"
    run = Pair(whole)
    assert run.wait() == 0, run.said

    engine = ["--data.engine=helpers.failing_engine.FailingEngine", "--data.engine.max_response_length=32"]
    code, said = launch(broken, *engine)
    assert code not in (0, 143)
    assert "the engine of the second process broke" in said
    assert "stopped at different places" not in said
    assert step_of(broken) == 3

    stopped = Pair(broken, *BACKGROUND, "--ckpt_path=last", "--resume_with_changes=true")  # another engine
    stopped.until_step(5)
    stopped.send(signal.SIGTERM)
    assert stopped.wait() == 128 + signal.SIGTERM, stopped.said
    assert "Resume with --ckpt_path" in stopped.said

    killed = Pair(broken, *BACKGROUND, "--ckpt_path=last")
    killed.until_step(8)
    killed.kill()

    rest = Pair(broken, "--ckpt_path=last")
    assert rest.wait() == 0, rest.said
    return whole, broken


def test_the_student_is_that_of_a_run_without_a_break(folders):
    (_, one), (_, other) = (
        checkpoint_files.read_student(checkpoint_files.last_checkpoint(folder)) for folder in folders
    )
    assert one.keys() == other.keys()
    for name, expected in one.items():
        torch.testing.assert_close(other[name], expected, rtol=0, atol=1e-6)


def test_so_are_the_curves(folders):
    for tag in ("train/loss", "train/grad_norm", "fire/keep_ratio", "train/reverse_kl"):
        reference, ours = (curve(folder, tag) for folder in folders)
        assert len(reference) == STEPS
        assert len(ours) >= 2
        for step, value in ours.items():
            assert value == pytest.approx(reference[step], rel=1e-5, abs=1e-6), tag


def test_the_optimizer_is_shared_out_too(folders):
    """AdamW keeps two numbers for each parameter, and counts its steps."""
    for rank in (0, 1):
        held = json.loads((folders[0] / f"holdings_{rank}.json").read_text())
        assert held["optimizer"] / held["student"] == pytest.approx(2, rel=0.01)
        assert held["student"] < 0.55 * 4 * load_causal_lm("tiny/student", "x", "float32").num_parameters()


def test_each_start_left_its_last_checkpoint_and_nothing_half_written(folders):
    for folder in folders[1].glob("version_*/checkpoints"):
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["last.ckpt"]
    assert not list(folders[0].rglob(".last*"))

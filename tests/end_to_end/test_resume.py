"""Runs that are killed, stopped or run out of disk: what they leave is whole, and going on changes nothing."""

import contextlib
import random
import resource
import signal
import threading
import time

import pytest
import torch
from helpers.processes import HoldAtStep, Run
from helpers.resume import BACKGROUND, EVERY_STEP, assert_same, curve, step_of

from fireopd.training import checkpoint_files

KILLS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Eight steps without a break."""
    run = Run(tmp_path_factory.mktemp("whole"), *EVERY_STEP)
    assert run.wait() == 0, run.said
    return run


def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, whole):
    run = Run(tmp_path, *EVERY_STEP)
    assert run.until(lambda: any(step_of(path) >= 4 for path in run.checkpoints()))
    run.send(signal.SIGKILL)
    again = Run(tmp_path, *EVERY_STEP, "--ckpt_path=last")
    assert again.wait() == 0, again.said
    assert_same(again, whole)


class Writing:
    """Says whether a checkpoint is being written, the how many-th that is seen."""

    def __init__(self, folder, number):
        self.folder, self.number, self.seen = folder, number, set()

    def __call__(self):
        for path in self.folder.rglob(".last.ckpt.partial"):
            with contextlib.suppress(FileNotFoundError):  # it has taken its place
                self.seen.add(path.stat().st_ino)
        return len(self.seen) >= self.number


def test_kills_at_random_moments_lose_no_step_that_was_saved_and_break_no_file(tmp_path, whole):
    """Every second kill strikes while a checkpoint is being written, in the background in every second pair of runs."""
    rng, known = random.Random(0), 0
    for kill in range(KILLS):
        run = Run(tmp_path, *(BACKGROUND if kill % 4 < 2 else EVERY_STEP), *(["--ckpt_path=last"] if known else []))
        before = len(run.checkpoints())
        if kill % 2:
            run.until(Writing(tmp_path, rng.randint(1, 3)))
        else:
            run.until(lambda: len(run.checkpoints()) > before)  # noqa: B023 - called at once
            run.process.join(rng.uniform(0, 0.4))
        run.send(signal.SIGKILL)
        last = checkpoint_files.last_checkpoint(tmp_path)
        checkpoint_files.check(last, sharded=False)
        assert step_of(last) >= known, "a step that was saved is still there"
        known = step_of(last)
        if known == 8:
            break
    run = Run(tmp_path, *EVERY_STEP, "--ckpt_path=last")
    assert run.wait() == 0, run.said
    assert_same(run, whole)


def test_sigterm_saves_and_exits(tmp_path, whole):
    hold = HoldAtStep(tmp_path, 3)
    run = Run(tmp_path, *EVERY_STEP, before=hold)
    assert run.until(hold.reached.exists), run.said
    run.send(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    assert "Resume with --ckpt_path" in run.said
    assert "Traceback" not in run.said
    again = Run(tmp_path, *EVERY_STEP, "--ckpt_path=last")
    assert again.wait() == 0, again.said
    assert_same(again, whole)


class TermAt:
    """Sends SIGTERM from a method of the module, called before the training."""

    def __init__(self, method):
        self.method = method

    def __call__(self):
        from fireopd.training.module import FiReOPDModule

        def terminated(module, *arguments):
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the process continues after SIGTERM")

        setattr(FiReOPDModule, self.method, terminated)


@pytest.mark.parametrize("method", ["run_plan", "configure_model"])
def test_sigterm_before_the_training_ends_the_process(tmp_path, method):
    run = Run(tmp_path, *EVERY_STEP, "--trainer.max_steps=1", before=TermAt(method))
    assert run.wait() == 128 + signal.SIGTERM, run.said
    assert "Traceback" not in run.said


class FullDisk:
    """From the first checkpoint on no file can grow beyond 1 MiB: too little for another."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self):
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while not list(self.folder.rglob("last.ckpt")):
            time.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(tmp_path, whole):
    run = Run(tmp_path, *EVERY_STEP, before=FullDisk(tmp_path))
    assert run.wait() == 2, run.said
    (last,) = run.checkpoints()
    assert f"trainer.default_root_dir: '{last.parent}': a checkpoint could not be written" in run.said
    assert "File too large" in run.said
    assert "Traceback" not in run.said
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    again = Run(tmp_path, *EVERY_STEP, "--ckpt_path=last")
    assert again.wait() == 0, again.said
    assert_same(again, whole)


def test_a_checkpoint_that_cannot_be_read_is_refused_before_anything_is_loaded(tmp_path):
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"PK\x03\x04 and no more")
    run = Run(tmp_path, f"--ckpt_path={broken}")
    assert run.wait() == 2, run.said
    assert f"--ckpt_path: '{broken}': cannot be read as a checkpoint of fireopd" in run.said
    assert "Loading" not in run.said


def test_the_best_checkpoint_is_kept_apart(tmp_path):
    options = ["--trainer.callbacks=[RunCheckpoint]", "--trainer.val_check_interval=2", "--data.validation_responses=2"]
    run = Run(tmp_path, *options)
    assert run.wait() == 0, run.said
    values = curve(tmp_path, "val/avg_at_k")
    assert len(values) == 4
    (best,) = tmp_path.glob("version_0/checkpoints/best.ckpt")
    saved = torch.load(best, weights_only=True)
    note = next(state["best"] for state in saved["callbacks"].values() if "best" in state)
    assert note["value"] == pytest.approx(max(values.values()))
    assert note["step"] == saved["global_step"] == 2 * (1 + list(values.values()).index(max(values.values())))
    assert f"Best val/avg_at_k: {note['value']:.3f}" in run.said

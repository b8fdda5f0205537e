"""Checkpoints that are written in the background: the state at the call, one at a time, errors in the main thread."""

from threading import Event
from types import SimpleNamespace

import pytest
import torch

from fireopd.errors import UserError
from fireopd.training import checkpoint_writer
from fireopd.training.checkpoint_writer import CheckpointWriter
from fireopd.training.host_copy import HostCopy


@pytest.fixture
def run(monkeypatch):
    """A trainer without a run: `state_dict` of its checkpoint is the student, which `global_step` fills."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(strategy=strategy, is_global_zero=True, global_step=0, student=torch.zeros(3))
    state = {"state_dict": {"student": trainer.student}, "optimizer_states": [], "fireopd": {}}
    monkeypatch.setattr(checkpoint_writer, "dump_checkpoint", lambda trainer: dict(state))

    def train():
        trainer.global_step += 1
        trainer.student.fill_(trainer.global_step)

    trainer.train = train
    return trainer


@pytest.fixture
def disk(monkeypatch):
    """A disk on which a write waits for `free`, and fails if `full`."""
    own, save = SimpleNamespace(free=Event(), full=False), torch.save

    def write(state, file):
        file.write(b"PK")
        file.flush()
        assert own.free.wait(60)
        if own.full:
            raise OSError(28, "No space left on device")
        file.seek(0)
        save(state, file)

    monkeypatch.setattr(checkpoint_writer.torch, "save", write)
    return own


def saved(path):
    return torch.load(path, weights_only=True)["state_dict"]["student"].tolist()


def test_training_continues_during_a_write_of_the_state_before(tmp_path, run, disk):
    writer, last = CheckpointWriter(background=True), tmp_path / "last.ckpt"
    last.write_bytes(b"the one before")
    run.train()
    writer.write(run, [tmp_path / "best.ckpt", last])
    run.train()
    writer.poll()
    assert not writer.wait(0)
    assert last.read_bytes() == b"the one before"
    disk.free.set()
    assert writer.wait()
    assert saved(last) == saved(tmp_path / "best.ckpt") == [1.0, 1.0, 1.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_the_next_checkpoint_waits_for_the_write_and_says_so(tmp_path, run, disk, monkeypatch):
    said, last = [], tmp_path / "last.ckpt"

    def say(text):
        said.append(text)
        disk.free.set()  # the disk is released by the wait alone

    monkeypatch.setattr(checkpoint_writer, "rank_zero_info", say)
    writer = CheckpointWriter(background=True)
    for _ in range(2):
        run.train()
        writer.write(run, [last])
    assert said == ["Waiting until the checkpoint of step 1 is written ..."]
    assert writer.wait()
    assert saved(last) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("way", ["poll", "wait", "write"])
def test_a_write_that_fails_ends_the_run_and_leaves_the_checkpoint_before(tmp_path, run, disk, way):
    writer, last = CheckpointWriter(background=True), tmp_path / "last.ckpt"
    last.write_bytes(b"the one before")
    disk.full = True
    writer.write(run, [last])
    disk.free.set()
    writer.thread.join()
    problem = "a checkpoint could not be written .*No space left on device.*; the one before is unchanged"
    with pytest.raises(UserError, match=problem):
        writer.write(run, [last]) if way == "write" else getattr(writer, way)()
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert last.read_bytes() == b"the one before"
    disk.full = False
    writer.write(run, [last])
    assert writer.wait()
    assert saved(last) == [0.0, 0.0, 0.0]


def test_tensors_that_share_memory_share_it_in_a_copy_and_memory_is_used_again():
    tied, copies = torch.arange(6.0), HostCopy()
    state = {"head": tied.view(2, 3), "embeddings": tied[2:], "empty": [torch.zeros(0)], "step": [1, {"lr": 0.5}]}
    copied = copies.of(state)
    place = copied["head"].data_ptr()
    assert copied["embeddings"].data_ptr() == place + 8
    assert place != tied.data_ptr()
    tied += 1
    assert copied["head"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    again = copies.of(state)
    assert again["head"].data_ptr() == place
    assert again["step"] == [1, {"lr": 0.5}]
    assert torch.equal(again["head"], state["head"])
    assert copies.of({"other": torch.ones(5)})["other"].tolist() == [1] * 5
    assert len(copies.buffers) == 1, "memory of another state is released"

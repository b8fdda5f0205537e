"""Checkpoints: corrupt ones are refused, the newest is found by its content, one of a live run is not resumed."""

import os
import shutil
from collections import Counter

import pytest
import torch
from helpers.checkpoints import metadata
from helpers.corrupt_checkpoints import OLD, fuzz, intact

from fireopd.atomic_files import lock
from fireopd.errors import UserError
from fireopd.training import checkpoint_files


@pytest.mark.parametrize(("kind", "count"), [("plain", 40), ("sharded", 20)])
def test_no_corrupt_checkpoint_is_read_as_another(tmp_path, kind, count):
    outcomes = list(fuzz(tmp_path, kind, range(count)))
    assert [fault for fault, outcome in outcomes if outcome == "changed"] == []
    assert Counter(outcome for _, outcome in outcomes)["refused"] > count * 0.8


@pytest.mark.parametrize("kind", ["plain", "sharded"])
def test_tensors_of_early_checkpoints_are_verified_by_their_crc(tmp_path, kind):
    path = tmp_path / "old.ckpt"
    (shutil.copytree if kind == "sharded" else shutil.copyfile)(OLD / f"{kind}.ckpt", path)
    checkpoint_files.check(path, sharded=True)
    file = path / "__0_0.distcp" if kind == "sharded" else path
    content = bytearray(file.read_bytes())
    tensor = torch.load(OLD / "plain.ckpt", weights_only=True)["state_dict"]["student.model.model.embed_tokens.weight"]
    place = content.find(tensor[:1].numpy().tobytes()) if kind == "plain" else 1500
    assert place > 0
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        checkpoint_files.check(path, sharded=True)
    with pytest.raises(UserError, match="checksum"):
        checkpoint_files.read_student(path)


def test_a_shard_is_compared_with_its_digest(tmp_path):
    path = intact(tmp_path, "sharded")
    shard = path / "__0_0.distcp"
    content = bytearray(shard.read_bytes())
    content[1500] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match="__0_0.distcp differs from its digest"):
        checkpoint_files.check(path, sharded=True)


def save(root, folder, step, **own):
    path = root / folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(metadata(**own) | {"global_step": step, "state_dict": {}, "optimizer_states": []}, path)
    return path


def test_the_newest_run_is_found_by_its_content(tmp_path):
    old, new = save(tmp_path, "version_9", 8, run="version_9"), save(tmp_path, "version_10", 3, run="version_10")
    copied = save(tmp_path, "version_11", 8, run="version_9")
    os.utime(new, (0, 0))
    assert checkpoint_files.last_checkpoint(tmp_path) == new
    assert copied.exists()
    assert old.exists()


def test_the_checkpoint_of_a_live_run_is_not_resumed(tmp_path):
    path = save(tmp_path, "version_0", 1)
    file = lock(path.parent.parent)
    with pytest.raises(UserError, match="the run that writes it is still running"):
        checkpoint_files.check(path, sharded=False)
    file.close()
    checkpoint_files.check(path, sharded=False)


def test_half_written_checkpoints_of_dead_runs_are_removed(tmp_path):
    dead, live = (save(tmp_path, f"version_{n}", 1).with_name(".last.ckpt.partial") for n in (0, 1))
    for path in (dead, live):
        path.write_bytes(b"PK")
    file = lock(live.parent.parent)
    checkpoint_files.clean(tmp_path)
    assert not dead.exists()
    assert live.exists()
    file.close()

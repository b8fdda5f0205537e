"""Safe loading of sharded checkpoints: code in any part is rejected."""

import io
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from helpers.checkpoints import metadata

from fireopd.distributed import sharded_checkpoints
from fireopd.errors import UserError
from fireopd.training import checkpoint_files


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def folder(tmp_path):
    """Sharded checkpoint with two model tensors and an optimizer setting, which is stored as bytes."""
    state = {"student.model.a": torch.arange(6.0).reshape(2, 3), "student.model.b": torch.ones(2, dtype=torch.bfloat16)}
    saved = {"state_dict": state, "optimizer_0": {"param_groups.0.lr": 1e-3, "state.a.exp_avg": torch.zeros(3)}}
    path = tmp_path / "last.ckpt"
    dcp.save(saved, checkpoint_id=path, no_dist=True)
    torch.save(metadata(), path / "meta.pt")
    return path


def test_a_valid_checkpoint_is_read(folder):
    sharded_checkpoints.check_no_code(folder)
    checkpoint_files.check(folder, sharded=True)
    name, tensors = checkpoint_files.read_student(folder)
    assert name == "tiny/student"
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert tensors["b"].dtype == torch.bfloat16
    assert tensors.keys() == {"a", "b"}, "no optimizer state"


def evil_list(folder, mark):
    (folder / sharded_checkpoints.METADATA_FILE).write_bytes(pickle.dumps(Evil(mark)))


def evil_meta(folder, mark):
    torch.save({"fireopd": {"student": Evil(mark)}}, folder / "meta.pt")


def evil_bytes(folder, mark):
    """Replace the optimizer setting with code."""
    listed = sharded_checkpoints.read_metadata(folder)
    (index,) = [index for index in listed.storage_data if index.fqn == "optimizer_0.param_groups.0.lr"]
    place, content = listed.storage_data[index], io.BytesIO()
    torch.save(Evil(mark), content)
    place.relative_path, place.offset, place.length = "evil.distcp", 0, len(content.getvalue())
    (folder / "evil.distcp").write_bytes(content.getvalue())
    (folder / sharded_checkpoints.METADATA_FILE).write_bytes(pickle.dumps(listed))


@pytest.mark.parametrize("plant", [evil_list, evil_meta, evil_bytes])
def test_resume_rejects_code(folder, tmp_path, plant):
    plant(folder, tmp_path / "mark")
    with pytest.raises(UserError, match="holds more than tensors and plain values, which could be code"):
        checkpoint_files.check(folder, sharded=True)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("plant", [evil_list, evil_meta])
def test_export_rejects_code(folder, tmp_path, plant):
    plant(folder, tmp_path / "mark")
    with pytest.raises(UserError, match="which could be code"):
        checkpoint_files.read_student(folder)
    assert not (tmp_path / "mark").exists()


def test_export_rejects_bytes_in_place_of_a_tensor(folder, tmp_path):
    listed, content = sharded_checkpoints.read_metadata(folder), io.BytesIO()
    torch.save(Evil(tmp_path / "mark"), content)
    name = "state_dict.student.model.a"
    (index,) = [index for index in listed.storage_data if index.fqn == name]
    listed.state_dict_metadata[name] = listed.state_dict_metadata["optimizer_0.param_groups.0.lr"]
    listed.storage_data[type(index)(name)] = listed.storage_data.pop(index)
    (folder / sharded_checkpoints.METADATA_FILE).write_bytes(pickle.dumps(listed))
    with pytest.raises(UserError, match="which could be code"):
        checkpoint_files.read_student(folder)
    assert not (tmp_path / "mark").exists()


def test_export_rejects_a_truncated_shard(folder):
    (shard,) = folder.glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(UserError, match="cannot be read as a checkpoint of fireopd"):
        checkpoint_files.read_student(folder)


def test_pytorch_executes_the_planted_code(folder, tmp_path):
    """The payload of the tests above is effective."""
    evil_list(folder, tmp_path / "mark")
    dcp.FileSystemReader(folder).read_metadata()
    assert (tmp_path / "mark").exists()


def test_the_checkpoint_is_found_after_a_kill_between_two_renames(folder, tmp_path):
    root = tmp_path / "runs"
    place = root / "version_0" / "checkpoints" / "last.ckpt"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    assert checkpoint_files.last_checkpoint(root) == place
    place.rename(place.with_name(".last.ckpt.replaced"))
    found = checkpoint_files.last_checkpoint(root)
    assert found.name == ".last.ckpt.replaced"
    assert checkpoint_files.read_student(place)[0] == "tiny/student"


def test_a_run_without_sharding_rejects_a_sharded_checkpoint(folder):
    with pytest.raises(UserError, match="it is the checkpoint of a run with sharded models"):
        checkpoint_files.check(folder, sharded=False)


def test_a_shard_outside_the_folder_is_not_opened(folder):
    listed = sharded_checkpoints.read_metadata(folder)
    for place in listed.storage_data.values():
        place.relative_path = f"../{folder.name}/{place.relative_path}"
    (folder / sharded_checkpoints.METADATA_FILE).write_bytes(pickle.dumps(listed))
    with pytest.raises(UserError, match="which is not a file of the folder"):
        checkpoint_files.check(folder, sharded=True)

"""Weight transfer to servers: all tensors arrive, in files of bounded size, and temporary files are removed."""

import os
from pkgutil import resolve_name

import pytest
import torch
from helpers.fake_server import FakeServer
from safetensors import SafetensorError

from fireopd.engines.vllm.client import ServerClient, ServerError
from fireopd.engines.vllm.weight_transfer import BroadcastClient, NCCLTransfer, SnapshotTransfer, write_snapshot
from fireopd.engines.vllm.worker import WORKER_EXTENSION, SnapshotLoader, read_snapshot, snapshot_files
from fireopd.models.weight_stream import WeightStream


@pytest.fixture
def model():
    return torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(5)))


@pytest.fixture
def servers():
    fakes = [FakeServer() for _ in range(3)]
    yield fakes
    for fake in fakes:
        fake.stop()


@pytest.fixture
def clients(servers):
    listed = [ServerClient(fake.url, 5.0) for fake in servers]
    yield listed
    for client in listed:
        client.close()


@pytest.mark.parametrize("file_bytes", [1, 600, 10**9])
def test_a_snapshot_round_trip_is_exact(tmp_path, model, file_bytes):
    write_snapshot(tmp_path, WeightStream(model), file_bytes)
    files = len(list(tmp_path.iterdir()))
    assert files == {1: 10, 600: 3, 10**9: 1}[file_bytes]
    read = dict(read_snapshot(snapshot_files(tmp_path)))
    assert read.keys() == model.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_permissions_of_a_snapshot_follow_the_umask(tmp_path, model, mask):
    former = os.umask(mask)
    try:
        with SnapshotTransfer(folder=tmp_path / "new" / "shared")._snapshot() as snapshot:
            write_snapshot(snapshot, WeightStream(model), 600)
            folder, *files = (path.stat().st_mode & 0o777 for path in (snapshot, *snapshot.iterdir()))
    finally:
        os.umask(former)
    assert folder == 0o777 & ~mask
    assert files == [0o666 & ~mask] * 3
    assert not list((tmp_path / "new" / "shared").iterdir())


def test_the_class_path_of_the_worker_extension_is_importable():
    assert WORKER_EXTENSION == "fireopd.engines.vllm.worker.SnapshotLoader"
    assert resolve_name(WORKER_EXTENSION) is SnapshotLoader


def test_a_wrong_snapshot_is_an_error_before_the_weights_are_discarded(tmp_path, model):
    worker = SnapshotLoader()
    worker.model_runner = None  # whose reload_weights would discard the weights
    with pytest.raises(FileNotFoundError, match="trainer and server must share this folder"):
        worker.load_snapshot(str(tmp_path))
    write_snapshot(tmp_path, WeightStream(model), 600)
    *_, last = sorted(tmp_path.iterdir())
    last.write_bytes(last.read_bytes()[:-4])
    with pytest.raises(SafetensorError):
        worker.load_snapshot(str(tmp_path))


def test_a_snapshot_is_deleted_once_it_is_loaded(tmp_path, model, servers, clients):
    transfer = SnapshotTransfer(folder=tmp_path / "shared")
    assert not transfer.send(clients, WeightStream(model), "3")
    assert all(fake.loaded.keys() == model.state_dict().keys() for fake in servers)
    assert not list((tmp_path / "shared").iterdir())


def test_a_failed_weight_transfer_is_reported(tmp_path, model, servers, clients):
    servers[1].stop()
    failed = SnapshotTransfer(folder=tmp_path).send(clients, WeightStream(model), "3")
    assert list(failed) == [clients[1]]
    assert servers[0].version == servers[2].version == "3"


def test_nccl_ranks_of_servers_do_not_overlap(servers, clients):
    client = BroadcastClient(clients)
    client.init_weight_transfer_engine({"rank_offset": 1, "world_size": 7})
    offsets = [fake.requests[0][1]["init_info"]["rank_offset"] for fake in servers]
    assert offsets == [1, 3, 5], "each fake has two workers, the trainer has rank 0"
    client.start_weight_update()
    client.update_weights({"names": ["a"]})
    client.finish_weight_update()
    paths = ["/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"]
    assert all([path for path, _ in fake.requests] == paths for fake in servers)
    servers[2].stop()
    with pytest.raises(ServerError, match=servers[2].url):
        client.start_weight_update()


def test_nccl_transfer_sends_before_setting_the_version(model, servers, clients, monkeypatch):
    sent = []

    class Group:
        def send_weights(self):
            sent.append("weights")

    transfer = NCCLTransfer()
    monkeypatch.setattr(NCCLTransfer, "_create_group", lambda self, client, weights: Group())
    for version in ("1", "2"):
        assert not transfer.send(clients, WeightStream(model), version)
    assert sent == ["weights", "weights"]
    assert [fake.version for fake in servers] == ["2"] * 3
    servers[1].version = "default"
    failed = transfer.send(clients, WeightStream(model), "3")
    assert list(failed) == clients, "a broadcast without the restarted server would hang"
    assert all("was restarted" in str(error) for error in failed.values())
    assert "the NCCL group consists of" in str(transfer.send(clients[:2], WeightStream(model), "3")[clients[0]])
    assert sent == ["weights", "weights"]


def test_a_snapshot_that_cannot_be_written_fails_all_servers(model, clients, tmp_path, monkeypatch):
    seen = []

    class Counted:
        def __iter__(self):
            for pair in WeightStream(model):
                seen.append(pair[0])
                yield pair

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("fireopd.engines.vllm.weight_transfer.save_file", full)
    failed = SnapshotTransfer(folder=tmp_path, file_gib=1e-7).send(clients, Counted(), "3")
    assert list(failed) == clients
    assert all("No space left on device" in str(error) for error in failed.values())
    assert len(seen) == 10, "all tensors are consumed, since the other processes also gather them"
    assert not list(tmp_path.iterdir())

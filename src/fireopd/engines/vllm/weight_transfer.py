"""Transfer of new weights from the trainer to vLLM servers."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fireopd.atomic_files import follow_umask
from fireopd.distributed import collectives
from fireopd.engines.vllm.client import RefusedError, ServerClient, ServerError
from fireopd.engines.vllm.worker import WORKER_EXTENSION
from fireopd.models.weight_stream import WeightStream

__all__ = [
    "BroadcastClient",
    "NCCLTransfer",
    "SnapshotTransfer",
    "WeightTransfer",
    "call_all",
    "write_snapshot",
]


class WeightTransfer(ABC):
    """Method of sending weights to servers."""

    @abstractmethod
    def check(self, settings: dict[str, Any]) -> str | None:
        """Return the reason why a server with these vLLM settings cannot receive weights, or None if it can."""

    @abstractmethod
    def send(
        self, servers: Sequence[ServerClient], weights: WeightStream, version: str
    ) -> dict[ServerClient, Exception]:
        """Send weights with a version and return the servers that failed, with their errors.

        Every process must call. Rank 0 sends; the others take part in gathering sharded weights.
        """


@dataclass
class SnapshotTransfer(WeightTransfer):
    """Transfer through safetensors files in a folder that all servers can read."""

    folder: Path | None = None
    """Folder that has the same path on all servers; null for a temporary folder, with servers on this machine."""
    file_gib: float = 1.0
    """File size, GiB. One file is held in memory while a snapshot is written."""

    def check(self, settings: dict[str, Any]) -> str | None:
        """Check the worker extension."""
        extension = settings["parallel_config"]["worker_extension_cls"]
        return None if extension == WORKER_EXTENSION else f"its worker extension is {extension!r}"

    def send(
        self, servers: Sequence[ServerClient], weights: WeightStream, version: str
    ) -> dict[ServerClient, Exception]:
        """Write a snapshot, load it on all servers, and delete it."""
        if collectives.rank() > 0:
            for _ in weights:
                pass
            return {}

        with self._snapshot() as snapshot:
            stream = iter(weights)
            try:
                write_snapshot(snapshot, stream, int(self.file_gib * 2**30))
            except (OSError, SafetensorError) as error:
                for _ in stream:  # the other processes also gather and would hang
                    pass
                return dict.fromkeys(servers, ServerError(f"the snapshot could not be written ({error})"))

            def load(server: ServerClient) -> None:
                server.load_snapshot(str(snapshot))
                server.set_weight_version(version)

            return call_all(servers, load)

    @contextmanager
    def _snapshot(self) -> Iterator[Path]:
        folder = Path(tempfile.gettempdir() if self.folder is None else self.folder).resolve()
        snapshot = folder / f"fireopd_weights_{uuid4().hex}"
        snapshot.mkdir(parents=True)  # mkdtemp would exclude servers of other users whatever the umask
        try:
            yield snapshot
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)


@dataclass
class NCCLTransfer(WeightTransfer):
    """Broadcast between GPUs with vLLM's weight transfer.

    Start the servers with `--weight-transfer-config '{"backend": "nccl"}'`. The trainer and all servers form one NCCL
    group. If a server is lost, resume the run from its last checkpoint.
    """

    address: str = "127.0.0.1"
    """Address of the trainer as seen from the servers."""
    port: int = 51216
    """Free port of the trainer."""
    sender: Any = field(default=None, init=False, compare=False, repr=False)
    """vLLM's sender, after the first transfer."""
    members: list[str] = field(default_factory=list, init=False, compare=False, repr=False)
    """Addresses of the servers in the NCCL group."""
    sent_version: str | None = field(default=None, init=False, compare=False, repr=False)
    """Version of the last transfer."""
    stream: Any = field(default=None, init=False, compare=False, repr=False)
    """Iterator over the tensors of the current transfer."""

    def check(self, settings: dict[str, Any]) -> str | None:
        """Check the backend of vLLM's weight transfer."""
        backend = (settings["weight_transfer_config"] or {}).get("backend")
        remedy = """start it with --weight-transfer-config '{"backend": "nccl"}'"""
        return None if backend == "nccl" else f"its weight transfer is {backend!r}: {remedy}"

    def send(
        self, servers: Sequence[ServerClient], weights: WeightStream, version: str
    ) -> dict[ServerClient, Exception]:
        """Create the NCCL group on the first call, then broadcast."""
        self.stream = iter(weights)
        try:
            if self.sender is None:
                self.sender = self._create_group(BroadcastClient(servers), weights)
                self.members = [server.url for server in servers]
            self._check_members(servers)
            self.sender.send_weights()
        except (ServerError, RefusedError) as error:
            for _ in self.stream:  # the other processes also gather and would hang
                pass
            return dict.fromkeys(servers, error)
        self.sent_version = version
        if collectives.rank() > 0:
            return {}
        return call_all(servers, lambda server: server.set_weight_version(version))

    def _check_members(self, servers: Sequence[ServerClient]) -> None:
        """Raise `ServerError` if a member of the group is missing, since the broadcast would hang."""
        if [server.url for server in servers] != self.members:
            raise ServerError(f"the NCCL group consists of {', '.join(self.members)}: resume the run to create another")
        if self.sent_version is not None and collectives.rank() == 0:
            for server in servers:
                if server.weight_version() != self.sent_version:
                    raise ServerError(f"{server.url} was restarted: resume the run to create another NCCL group")

    def _create_group(self, client: "BroadcastClient", weights: WeightStream) -> Any:
        from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

        transfer = self

        class Source(WeightSource):
            """Adapter of the weights for vLLM's sender."""

            def metadata(self) -> list[ParamMeta]:
                return [ParamMeta(*row) for row in weights.metadata()]

            def __iter__(self) -> Iterator[tuple[str, Tensor]]:
                return transfer.stream

        world_size = 1 + (sum(client.num_workers()) if collectives.rank() == 0 else 0)
        settings = NCCLTrainerInitInfo(
            rank=collectives.rank(), master_address=self.address, master_port=self.port, world_size=world_size
        )
        return NCCLTrainerWeightTransferEngine.trainer_init(settings, client=client, source=Source())


class BroadcastClient:
    """Client interface of vLLM's weight transfer that forwards each request to all servers."""

    def __init__(self, servers: Sequence[ServerClient]) -> None:
        """Store the clients."""
        self.servers = servers

    def num_workers(self) -> list[int]:
        """Return the number of workers of each server."""
        return [server.num_workers() for server in self.servers]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Add the workers of each server to the group, with ranks after those of the preceding servers."""
        counts = self.num_workers()
        offsets = {s: init_info["rank_offset"] + sum(counts[:i]) for i, s in enumerate(self.servers)}
        self._post("/init_weight_transfer_engine", lambda s: {"init_info": {**init_info, "rank_offset": offsets[s]}})

    def start_weight_update(self) -> None:
        """Announce a weight update."""
        self._post("/start_weight_update", lambda _: None)

    def update_weights(self, update_info: Any) -> None:
        """Receive the weights in all workers."""
        self._post("/update_weights", lambda _: {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Activate the weights in all workers."""
        self._post("/finish_weight_update", lambda _: {"weight_version": weight_version})

    def _post(self, path: str, body: Callable[[ServerClient], dict[str, Any] | None]) -> None:
        failed = call_all(self.servers, lambda server: server.post(path, body(server)))
        for server, error in failed.items():
            raise ServerError(f"{server.url}: {error}") from error


def call_all(servers: Sequence[ServerClient], action: Callable[[ServerClient], Any]) -> dict[ServerClient, Exception]:
    """Run an action for all servers in parallel and return the servers that failed, with their errors."""

    def attempt(server: ServerClient) -> Exception | None:
        """Return the error of the action, or None."""
        try:
            action(server)
        except (ServerError, RefusedError) as error:
            return error
        return None

    with ThreadPoolExecutor(max(1, len(servers))) as pool:
        errors = pool.map(attempt, servers)
        return {server: error for server, error in zip(servers, errors, strict=True) if error is not None}


def write_snapshot(folder: Path, weights: Iterable[tuple[str, Tensor]], file_bytes: int) -> None:
    """Write named tensors to numbered safetensors files of about the given size, with the permissions of new files."""
    part: dict[str, Tensor] = {}
    number = size = 0
    for name, tensor in weights:
        if part and size + tensor.nbytes > file_bytes:
            save_file(part, folder / f"weights_{number:05d}.safetensors")
            part, number, size = {}, number + 1, 0
        part[name] = tensor.cpu().contiguous()
        size += tensor.nbytes
    save_file(part, folder / f"weights_{number:05d}.safetensors")
    follow_umask(folder)

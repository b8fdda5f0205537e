"""How new weights get from the trainer to vLLM servers."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.engines.vllm.client import WORKER_EXTENSION, RefusedError, Server, ServerError
from fireopd.models.weight_stream import WeightStream


class WeightTransfer(ABC):
    """Sends weights to servers."""

    @abstractmethod
    def check(self, settings: dict[str, Any]) -> str | None:
        """Return what keeps a server with these settings of vLLM from taking the weights, if something does."""

    @abstractmethod
    def send(self, servers: Sequence[Server], weights: WeightStream, version: str) -> dict[Server, Exception]:
        """Send weights, and give them a version; return the servers that did not take them, and why.

        Every process must call; the first one sends, the others take part in the gathering of sharded weights.
        """


@dataclass
class SnapshotTransfer(WeightTransfer):
    """Writes the weights as safetensors files, which the servers read: on any machine that shares a folder."""

    folder: Path | None = None
    """A folder that the servers see under the same name; null for a temporary one, with servers on this machine."""
    file_gib: float = 1.0
    """Size at which a new file is begun, GiB: what is held in memory while a snapshot is written."""

    def check(self, settings: dict[str, Any]) -> str | None:
        """Look for the worker extension."""
        extension = settings["parallel_config"]["worker_extension_cls"]
        return None if extension == WORKER_EXTENSION else f"its worker extension is {extension!r}"

    def send(self, servers: Sequence[Server], weights: WeightStream, version: str) -> dict[Server, Exception]:
        """Write, have it read, delete."""
        if collectives.rank() > 0:
            for _ in weights:
                pass
            return {}

        with self._snapshot() as snapshot:
            stream = iter(weights)
            try:
                write_snapshot(snapshot, stream, int(self.file_gib * 2**30))
            except (OSError, SafetensorError) as error:
                for _ in stream:  # the other processes are gathering too, and are not to wait for this one
                    pass
                return dict.fromkeys(servers, ServerError(f"the snapshot could not be written ({error})"))

            def load(server: Server) -> None:
                server.load_snapshot(str(snapshot))
                server.take_version(version)

            return failures(servers, load)

    @contextmanager
    def _snapshot(self) -> Iterator[Path]:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        snapshot = Path(tempfile.mkdtemp(prefix="fireopd_weights_", dir=self.folder)).resolve()
        snapshot.chmod(0o755)  # a server may run under another name
        try:
            yield snapshot
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)


@dataclass
class NCCLTransfer(WeightTransfer):
    """Broadcasts the weights from GPU to GPU by vLLM's own weight transfer.

    The servers have to be started with `--weight-transfer-config '{"backend": "nccl"}'`. All of them and the trainer
    are one NCCL group: if a server is lost, the run has to be gone on with from its checkpoint.
    """

    address: str = "127.0.0.1"
    """The trainer's machine, as the servers reach it."""
    port: int = 51216
    """A free port on it."""
    group: Any = field(default=None, init=False, compare=False, repr=False)
    """vLLM's sending end, once there is one."""
    members: list[str] = field(default_factory=list, init=False, compare=False, repr=False)
    """The addresses of its servers."""
    sent: str | None = field(default=None, init=False, compare=False, repr=False)
    """The version that was sent last."""
    stream: Any = field(default=None, init=False, compare=False, repr=False)
    """The tensors that are being sent."""

    def check(self, settings: dict[str, Any]) -> str | None:
        """Look for the back end."""
        backend = (settings["weight_transfer_config"] or {}).get("backend")
        wanted = """start it with --weight-transfer-config '{"backend": "nccl"}'"""
        return None if backend == "nccl" else f"its weight transfer is {backend!r}: {wanted}"

    def send(self, servers: Sequence[Server], weights: WeightStream, version: str) -> dict[Server, Exception]:
        """Open the group at the first call, then broadcast."""
        self.stream = iter(weights)
        try:
            if self.group is None:
                self.group, self.members = self._open(Fleet(servers), weights), [server.url for server in servers]
            self._check_members(servers)
            self.group.send_weights()
        except (ServerError, RefusedError) as error:
            for _ in self.stream:  # the other processes are gathering too, and are not to wait for this one
                pass
            return dict.fromkeys(servers, error)
        self.sent = version
        if collectives.rank() > 0:
            return {}
        return failures(servers, lambda server: server.take_version(version))

    def _check_members(self, servers: Sequence[Server]) -> None:
        """A broadcast that a member does not take part in would wait for ever."""
        if [server.url for server in servers] != self.members:
            raise ServerError(f"the NCCL group is {', '.join(self.members)}: resume the run to make another")
        if self.sent is not None and collectives.rank() == 0:
            for server in servers:
                if server.version() != self.sent:
                    raise ServerError(f"{server.url} was started anew: resume the run to make another NCCL group")

    def _open(self, fleet: "Fleet", weights: WeightStream) -> Any:
        from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

        transfer = self

        class Source(WeightSource):
            """The weights as vLLM's sending end wants them."""

            def metadata(self) -> list[ParamMeta]:
                return [ParamMeta(*row) for row in weights.metadata()]

            def __iter__(self) -> Iterator[tuple[str, Tensor]]:
                return transfer.stream

        members = 1 + (sum(fleet.workers()) if collectives.rank() == 0 else 0)
        settings = NCCLTrainerInitInfo(
            rank=collectives.rank(), master_address=self.address, master_port=self.port, world_size=members
        )
        return NCCLTrainerWeightTransferEngine.trainer_init(settings, client=fleet, source=Source())


class Fleet:
    """All servers as the one that vLLM's weight transfer speaks to."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """Take the servers."""
        self.servers = servers

    def workers(self) -> list[int]:
        """Return the number of workers of each server."""
        return [server.workers() for server in self.servers]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have each server's workers join the group, behind those of the servers before it."""
        counts = self.workers()
        offsets = {s: init_info["rank_offset"] + sum(counts[:i]) for i, s in enumerate(self.servers)}
        self._all("/init_weight_transfer_engine", lambda s: {"init_info": {**init_info, "rank_offset": offsets[s]}})

    def start_weight_update(self) -> None:
        """Announce weights."""
        self._all("/start_weight_update", lambda _: None)

    def update_weights(self, update_info: Any) -> None:
        """Have the workers receive."""
        self._all("/update_weights", lambda _: {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Have the workers put the weights in place."""
        self._all("/finish_weight_update", lambda _: {"weight_version": weight_version})

    def _all(self, path: str, body: Callable[[Server], dict[str, Any] | None]) -> None:
        failed = failures(self.servers, lambda server: server.post(path, body(server)))
        for server, error in failed.items():
            raise ServerError(f"{server.url}: {error}") from error


def failures(servers: Sequence[Server], action: Callable[[Server], Any]) -> dict[Server, Exception]:
    """Do something to all servers at once; return those that failed, and why."""

    def attempt(server: Server) -> Exception | None:
        """Return what went wrong, if something did."""
        try:
            action(server)
        except (ServerError, RefusedError) as error:
            return error
        return None

    with ThreadPoolExecutor(max(1, len(servers))) as pool:
        outcomes = pool.map(attempt, servers)
        return {server: error for server, error in zip(servers, outcomes, strict=True) if error is not None}


def write_snapshot(folder: Path, weights: Iterable[tuple[str, Tensor]], file_bytes: int) -> None:
    """Write named tensors into numbered safetensors files of about a size."""
    part: dict[str, Tensor] = {}
    number = held = 0
    for name, tensor in weights:
        if part and held + tensor.nbytes > file_bytes:
            save_file(part, folder / f"weights_{number:05d}.safetensors")
            part, number, held = {}, number + 1, 0
        part[name] = tensor.cpu().contiguous()
        held += tensor.nbytes
    save_file(part, folder / f"weights_{number:05d}.safetensors")

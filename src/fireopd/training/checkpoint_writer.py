"""Atomic writes of checkpoints, in the foreground or by a background thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save

from fireopd.atomic_files import remove, replace
from fireopd.distributed import collectives, sharded_checkpoints
from fireopd.distributed.fsdp import FSDP2Strategy
from fireopd.errors import UserError
from fireopd.private_apis import dump_checkpoint
from fireopd.training.checkpoint_integrity import DIGEST, FILES, METADATA, RUN, digest, file_digests, load_data
from fireopd.training.host_copy import HostCopy

__all__ = ["CheckpointWriter", "seal"]

LONGEST_WRITE = timedelta(hours=6)
"""Time after which a process gives up waiting for the others within a write."""


class CheckpointWriter:
    """Writes checkpoints next to the current ones, then replaces the current ones. One write is in progress at a time.

    Files are replaced atomically. A folder is moved aside first; `standing` finds it if the run is killed in between.
    Every process must call every method.
    """

    def __init__(self, *, background: bool) -> None:
        """Create without a write in progress.

        Args:
            background: write from a copy in host memory, in a thread; else `write` returns after the write.
        """
        self.copy = HostCopy() if background else None
        self.group: dist.ProcessGroup | None = None  # of the threads; collectives of training use the default group
        self.job: _Write | None = None
        self.thread: Thread | None = None

    def write(self, trainer: Trainer, paths: Sequence[Path]) -> None:
        """Write the state of a run to one or more paths, after the write in progress has ended.

        Raises:
            UserError: if it cannot be written, or the one before could not; the current checkpoint stays.
        """
        self.wait()
        strategy = trainer.strategy
        sharded = isinstance(strategy, FSDP2Strategy) and strategy.saves_shards
        state = _on_all_ranks(lambda: _state(trainer, paths[0]), paths[0], None)
        if not sharded and not trainer.is_global_zero:
            state = None
        if self.copy is None:
            _Write(state, paths, sharded=sharded, group=None)()
            return
        if self.group is None and dist.is_initialized():
            self.group = dist.new_group(backend="gloo", timeout=LONGEST_WRITE)
        state = _on_all_ranks(partial(self.copy.of, state), paths[0], None)
        device = strategy.root_device
        self.job = _Write(state, paths, sharded=sharded, group=self.group, device=device, step=trainer.global_step)
        self.thread = Thread(target=self.job.run, name="checkpoint", daemon=True)
        self.thread.start()

    def poll(self) -> None:
        """Raise the error of a write that has ended on all processes.

        Raises:
            UserError: on all processes, if one could not write.
        """
        if self.thread is None or self.job is None:
            return
        if not collectives.all_reduce_max(int(self.thread.is_alive()), self.job.device):
            self._end()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the write in progress, at most some seconds; return whether it has ended.

        Raises:
            UserError: on all processes, if one could not write.
        """
        if self.thread is None or self.job is None:
            return True
        if self.thread.is_alive():
            rank_zero_info(f"Waiting until the checkpoint of step {self.job.step} is written ...")
        self.thread.join(seconds)
        if self.thread.is_alive():
            return False
        self._end()
        return True

    def _end(self) -> None:
        error = self.job.error if self.job is not None else None
        self.job = self.thread = None
        if error is not None:
            raise error


@dataclass
class _Write:
    """Write of one state to some paths."""

    state: dict[str, Any] | None
    """Checkpoint; None in a process that writes nothing."""
    paths: Sequence[Path]
    """Files, or folders if sharded."""
    sharded: bool
    """True to write folders with one file per process."""
    group: dist.ProcessGroup | None
    """Processes that write together; None for the default group."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Device of this process."""
    step: int = 0
    """Optimizer steps before it."""
    error: Exception | None = None
    """Error of a write in a thread."""

    def run(self) -> None:
        """Write in a thread, and keep the error."""
        try:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # each thread starts on the first device
            self()
        except Exception as error:  # raised in the main thread
            self.error = error
        finally:
            self.state = None

    def __call__(self) -> None:
        """Write to each path."""
        for path in self.paths:
            unfinished = path.with_name(f".{path.name}.partial")
            together = partial(_on_all_ranks, path=path, unfinished=unfinished, group=self.group)
            together(partial(_on_first_rank, remove, unfinished))
            together(partial(self._save, unfinished))
            if self.sharded:
                own = together(partial(file_digests, unfinished.glob(f"__{collectives.rank()}_*")))
                parts = collectives.all_gather_objects(own, self.group)
                shards = {name: value for part in parts for name, value in part.items()}
                together(partial(_on_first_rank, seal, unfinished, shards))
            together(partial(_on_first_rank, replace, unfinished, path))

    def _save(self, path: Path) -> None:
        if self.state is None:
            return
        if not self.sharded:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:  # in small parts, between which other threads run
                torch.save(self.state, file)
            return
        path.mkdir(parents=True, exist_ok=True)
        rest = dict(self.state)
        shards = {"state_dict": rest.pop("state_dict")}
        shards |= {f"optimizer_{index}": own for index, own in enumerate(rest.pop("optimizer_states"))}
        save(shards, checkpoint_id=path, process_group=self.group)
        if collectives.rank() == 0:
            torch.save(rest, path / METADATA)


def _on_first_rank(action: Callable[..., None], *arguments: Any) -> None:
    if collectives.rank() == 0:
        action(*arguments)


def _state(trainer: Trainer, path: Path) -> dict[str, Any]:
    """Return the checkpoint, with its digest."""
    # Like trainer.save_checkpoint, without its final barrier, where other ranks would wait for a rank that failed.
    checkpoint = dump_checkpoint(trainer)
    checkpoint[RUN]["run"] = path.parent.parent.name
    checkpoint[DIGEST] = digest(checkpoint)
    return checkpoint


def _on_all_ranks(
    action: Callable[[], Any], path: Path, unfinished: Path | None, group: dist.ProcessGroup | None = None
) -> Any:
    """Return the result of an action of all ranks. If it fails on one, remove what was written and raise on all."""
    result, error = None, None
    try:
        result = action()
    except (OSError, RuntimeError, CheckpointException) as failure:
        error = _unwritten(path, failure)
    try:
        collectives.raise_on_all_ranks(error, group)
    except UserError:
        if unfinished is not None:
            remove(unfinished)
        raise
    return result


def _unwritten(path: Path, failure: BaseException) -> UserError:
    if isinstance(failure, CheckpointException):
        failure = next(iter(failure.failures.values()))[0]
    while failure.__context__ is not None and not isinstance(failure, OSError):
        failure = failure.__context__  # PyTorch raises a RuntimeError after the OSError of the disk
    reason = str(failure).partition("\n")[0]
    problem = f"a checkpoint could not be written ({reason}); the one before is unchanged"
    return UserError("trainer.default_root_dir", str(path.parent), problem, "free space there, and resume from it")


def seal(folder: Path, shards: dict[str, str]) -> None:
    """Add the digests of all files to the metadata of a folder."""
    meta = load_data(folder / METADATA, mmap=False)
    meta[FILES] = shards | file_digests([folder / sharded_checkpoints.METADATA_FILE])
    meta[DIGEST] = digest(meta)
    torch.save(meta, folder / METADATA)

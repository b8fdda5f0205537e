"""Code that runs in vLLM workers: in the training process for `VLLMEngine`, on a server for `VLLMServerEngine`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

__all__ = [
    "CPU_WORKER",
    "SHARED_MEMORY",
    "WORKER_EXTENSION",
    "SnapshotLoader",
    "read_snapshot",
    "repack_head",
    "snapshot_files",
]

CPU_WORKER = "fireopd.engines.vllm.cpu_worker.SharedCPUWorker"
"""Class path of the worker where several CPU processes run vLLM. Its module imports vLLM."""
SHARED_MEMORY = "FIREOPD_SHARED_MEMORY"
"""Environment variable with the name of the segments of shared memory of this worker."""


def repack_head(model: nn.Module) -> None:
    """Repack the output head of a CPU model after its weights have changed.

    On a CPU, vLLM keeps a packed copy of the head. If the head is tied to the embeddings, loading new weights does not
    update this copy, and the model still samples with the old head.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        dispatch_cpu_unquantized_gemm(model.get_submodule("lm_head"), remove_weight=False)


class SnapshotLoader:
    """Worker extension that loads a snapshot of the student. `fireopd serve` starts vLLM with it."""

    model_runner: Any
    """vLLM's model runner, an attribute of the worker that this class is mixed into."""

    def load_snapshot(self, folder: str) -> None:
        """Replace the weights with those in a folder's safetensors files.

        Raises:
            FileNotFoundError, SafetensorError: if there are none, or one is damaged. The weights are unchanged: vLLM
                discards them as soon as loading begins.
        """
        files = snapshot_files(Path(folder))
        self.model_runner.reload_weights(weights_iterator=read_snapshot(files))
        repack_head(self.model_runner.get_model())


WORKER_EXTENSION = f"{SnapshotLoader.__module__}.{SnapshotLoader.__qualname__}"
"""Class path of the worker extension, the value of vLLM's --worker-extension-cls."""


def snapshot_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder.

    Raises:
        FileNotFoundError: if there are none.
        SafetensorError: if the header or the size of a file is wrong.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no snapshot in {folder}: trainer and server must share this folder")
    for path in files:
        with safe_open(path, "pt"):
            pass
    return files


def read_snapshot(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    """Yield the named tensors of safetensors files one at a time."""
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)

"""What runs inside vLLM's workers: in the trainer's process for `VLLMEngine`, in a server for `VLLMServerEngine`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn


def repack_head(model: nn.Module) -> None:
    """Give the output head of a CPU model the weights that were loaded last.

    On a CPU vLLM keeps a packed copy of the head. Where the head is tied to the embeddings, loading new weights leaves
    the packed copy as it was, and the model goes on sampling from the old head.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        dispatch_cpu_unquantized_gemm(model.get_submodule("lm_head"), remove_weight=False)


class SnapshotLoader:
    """An extension of vLLM's worker that loads a snapshot of the student. `fireopd serve` starts vLLM with it."""

    model_runner: Any
    """vLLM's, of the worker that this class is mixed into."""

    def load_snapshot(self, folder: str) -> None:
        """Replace the weights by those of a folder's safetensors files."""
        self.model_runner.reload_weights(weights_iterator=read_snapshot(Path(folder)))
        repack_head(self.model_runner.get_model())


def read_snapshot(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the named tensors of a folder's safetensors files, one at a time.

    Raises:
        FileNotFoundError: if there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no snapshot in {folder}: is it a folder that trainer and server share?")
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)

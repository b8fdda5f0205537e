"""Worker of an engine that several CPU processes share, with segments of shared memory of its own."""

import os
from pathlib import Path
from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from fireopd.engines.vllm.worker import SHARED_MEMORY

__all__ = ["SharedCPUWorker"]


class SharedCPUWorker(CPUWorker):
    """Worker whose segments of shared memory have the name that rank 0 chose for this engine.

    vLLM names them by the end of the initialization method, which all engines that join a process group have in common:
    two runs on one machine would write into the same memory, and the segments of a killed run would keep every later
    one from its start ("create shm in SHMManager failed").
    """

    def __init__(self, *arguments: Any, distributed_init_method: str, **settings: Any) -> None:
        """Append the name to the initialization method, which is not used since the process group exists."""
        method = f"{distributed_init_method}:{os.environ[SHARED_MEMORY]}"
        super().__init__(*arguments, distributed_init_method=method, **settings)

    def init_device(self) -> None:
        """Join the other workers, then remove the names of the segments: they are freed whenever the processes end."""
        super().init_device()
        for path in Path("/dev/shm").glob(f"{os.environ[SHARED_MEMORY]}*"):
            path.unlink(missing_ok=True)

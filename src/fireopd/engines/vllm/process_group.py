"""Process group that vLLM creates in a process without one. All engines of the process share it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch.distributed as dist

__all__ = ["SHARED_GROUP", "SharedGroup"]


@dataclass
class SharedGroup:
    """Count of the running engines. The group is destroyed with the last one, if the trainer did not create it.

    vLLM itself leaves the group behind. Another library of the process, such as a trainer with a distributed strategy,
    could then not create its own.
    """

    engines: int = 0
    """Running engines of this process."""
    created: bool = False
    """Whether there was no group before the first engine."""

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Count an engine that starts in this context, unless it raises."""
        if self.engines == 0:
            self.created = not dist.is_initialized()
        self.engines += 1
        try:
            yield
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Count an engine that was shut down."""
        self.engines -= 1
        if self.engines == 0 and self.created and dist.is_initialized():
            from vllm.distributed import parallel_state

            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()


SHARED_GROUP = SharedGroup()
"""Group of this process."""

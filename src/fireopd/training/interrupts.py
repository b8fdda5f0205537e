"""Ctrl-C and SIGTERM: a run stops where its checkpoint holds complete steps."""

import signal
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.distributed import collectives

__all__ = ["Interrupts"]

EXCEPTIONS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SIGTERMException}
"""Exceptions that the signals raise."""


class Interrupts(Callback):
    """Callback that stops a single process at once, or after the step if the student is being updated.

    Several processes stop together after the step, whichever of them received the signal; a second Ctrl-C stops at
    once. The module adds this callback to every run.
    """

    def __init__(self) -> None:
        """Create with no signal received."""
        self.trainer: Trainer | None = None
        self.received = 0
        self.postponed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's handlers, which start collective operations within a step; Lightning restores them."""
        self.trainer = trainer
        for number in EXCEPTIONS:
            signal.signal(number, self.receive)

    def postpone(self) -> None:
        """Postpone signals to the end of the step."""
        self.postponed = True

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: pass SIGTERM on to child processes, and stop now or after the step."""
        again = number == self.received == signal.SIGINT
        self.received = number
        launcher = self.trainer.strategy.launcher if self.trainer else None
        if number == signal.SIGTERM and launcher is not None:
            launcher.kill(number)
        if again or (collectives.world_size() == 1 and not self.postponed):
            raise EXCEPTIONS[number]
        rank_zero_info("Stopping after this step ...")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if any process has received a signal."""
        self.postponed = False
        received = collectives.all_reduce_max(self.received, pl_module.device)
        if received:
            raise EXCEPTIONS[received]

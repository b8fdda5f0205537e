"""Ctrl-C and SIGTERM: where a run stops, so that what it saves is a whole step."""

import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.distributed import collectives

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

EXCEPTIONS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SIGTERMException}
"""What a signal raises."""


class Interrupts(Callback):
    """Stops a single process at once, unless the student is being updated: then after the step.

    Several processes stop after the step, together, whichever of them got the signal; a second Ctrl-C stops at once.
    The module adds it to every run.
    """

    def __init__(self) -> None:
        """Start with no signal received."""
        self.trainer: Trainer | None = None
        self.received = 0
        self.postponed = False

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Take the signals over from Lightning, whose handler has the processes talk in mid-step; it restores them."""
        self.trainer = trainer
        for number in EXCEPTIONS:
            signal.signal(number, self.note)

    def postpone(self) -> None:
        """Let no signal come between here and the end of the step."""
        self.postponed = True

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal in."""
        again = number == self.received == signal.SIGINT
        self.received = number
        launcher = self.trainer.strategy.launcher if self.trainer else None
        if number == signal.SIGTERM and launcher is not None:
            launcher.kill(number)
        if again or (collectives.world_size() == 1 and not self.postponed):
            raise EXCEPTIONS[number]
        rank_zero_info("Stopping after this step ...")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if a signal has come to any process."""
        self.postponed = False
        received = collectives.all_reduce_max(self.received, pl_module.device)
        if received:
            raise EXCEPTIONS[received]

"""Ctrl-C and SIGTERM: a run stops where its checkpoint holds complete steps, with their rows and validations."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.distributed import collectives
from fireopd.training.step_loop import StepCallback, StepLoop

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["Interrupts"]

EXCEPTIONS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SIGTERMException}
"""Exceptions that the signals raise."""


class Interrupts(StepCallback):
    """Callback that stops a single process at once while it samples or scores, and otherwise at the end of the step.

    Several processes stop together, before the next sampling or scoring or at the end of the step, whichever of them
    received the signal. A second Ctrl-C stops at once. The module adds this callback to every run.
    """

    def __init__(self) -> None:
        """Create with no signal received."""
        self.trainer: Trainer | None = None
        self.received = 0
        self.at_once = False
        self.torn = False
        """True from the first update of a step until its end, while the weights are those of no complete step."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Install the loop that calls `on_step_end`."""
        StepLoop.install(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's handlers, which start collective operations within a step; Lightning restores them."""
        self.trainer = trainer
        if threading.current_thread() is threading.main_thread():  # Python refuses handlers elsewhere
            for number in EXCEPTIONS:
                signal.signal(number, self.receive)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Context of work that changes nothing and is repeated on resume. Every process must enter."""
        self.stop_if_received()
        self.at_once = collectives.world_size() == 1
        try:
            yield
        finally:
            self.at_once = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: pass SIGTERM on to child processes, and stop now or later."""
        again = number == self.received == signal.SIGINT
        self.received = number
        launcher = self.trainer.strategy.launcher if self.trainer else None
        if number == signal.SIGTERM and launcher is not None:
            launcher.kill(number)
        if again or self.at_once:
            raise EXCEPTIONS[number]
        rank_zero_info("Stopping after this step ...")

    def stop_if_received(self) -> None:
        """Stop if any process has received a signal. Every process must call."""
        if self.trainer is None:
            return
        device: torch.device = self.trainer.strategy.root_device
        received = collectives.all_reduce_max(self.received, device)
        if received:
            raise EXCEPTIONS[received]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the validation is complete, before it is saved."""
        loop = trainer.fit_loop.epoch_loop
        if isinstance(loop, StepLoop) and not trainer.sanity_checking:
            loop.validation = "done"

    def on_step_end(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Stop if any process has received a signal."""
        self.stop_if_received()

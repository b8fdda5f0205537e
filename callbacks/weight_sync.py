"""Keeps the rollout engine's weights those of the student. The module adds it to every run."""

import time
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

if TYPE_CHECKING:
    from fireopd.module import FiReOPDModule


class WeightSync(Callback):
    """Starts the engine, and sends it the student's weights before a rollout that would come from old ones."""

    def on_fit_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Start the engine with the student's weights."""
        rank_zero_info(f"Starting {type(pl_module.data.engine).__name__} ...")
        pl_module.data.engine.setup(pl_module.student_name, pl_module.device)
        self.sync(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Send the weights again if a checkpoint was loaded since."""
        self.sync(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Send the weights that are to be validated."""
        self.sync(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Send the weights of the next rollout."""
        pl_module.log("time/sync", self.sync(pl_module))

    def sync(self, pl_module: "FiReOPDModule") -> float:
        """Send the weights if the engine's are of another version; return the seconds that it took."""
        began = time.perf_counter()
        engine = pl_module.data.engine
        if engine.policy_version != pl_module.policy_version:
            engine.load_weights(pl_module.student_weights(), pl_module.policy_version)
        return time.perf_counter() - began

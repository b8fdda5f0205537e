"""Synchronisation of the rollout engine's weights with the student."""

import time
from itertools import chain, islice
from typing import Any, Protocol

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from fireopd.engines.contract import check_version
from fireopd.errors import UserError
from fireopd.models.weight_stream import WeightStream
from fireopd.training.data import RolloutDataModule
from fireopd.training.weight_probe import PROBE_LENGTH, Probe, ProbedModule, allowed_gap
from fireopd.training.weight_trial import SyncTrial

__all__ = ["StudentModule", "WeightSync"]


class StudentModule(ProbedModule, Protocol):
    """Attributes of the Lightning module that the sync needs."""

    policy_version: int

    @property
    def data(self) -> RolloutDataModule:
        """Data module with engine and prompts."""

    def student_weights(self) -> WeightStream:
        """Return the student's tensors."""

    def log(self, name: str, value: float) -> None:
        """Log a scalar."""


class WeightSync(Callback):
    """Callback that starts the engine, and sends it the student's weights before the next rollout.

    A trial with changed weights shows at the start that all tensors arrive. A probe verifies each sync: engine and
    student score a trajectory of the last update, where new and old weights differ most. The module adds this callback
    to every run.
    """

    def __init__(self) -> None:
        """Create without a probe."""
        self.trajectory: list[int] | None = None
        self.previous: Probe | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: StudentModule) -> None:
        """Start the engine with the student's weights, if it samples."""
        if pl_module.data.samples:
            self._start(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: StudentModule) -> None:
        """Send the weights to validate; a validation without training starts the engine first."""
        if trainer.state.fn == TrainerFn.VALIDATING and pl_module.data.samples:
            self._start(pl_module)
        self.sync(pl_module)

    def _start(self, pl_module: StudentModule) -> None:
        rank_zero_info(f"Starting {type(pl_module.data.engine).__name__} ...")
        data = pl_module.data
        prompts = [*data.training_prompts, *data.validation_prompts]
        data.engine.expect_prompts(max(len(prompt.tokens) for prompt in prompts))
        data.engine.setup(pl_module.student_name, pl_module.device)
        longest = max(len(prompt.tokens) for prompt in data.training_prompts) + data.engine.max_response_length
        tokens = chain.from_iterable(prompt.tokens for prompt in data.training_prompts)
        # An engine generates a token after a probe.
        SyncTrial(pl_module, data.engine, list(islice(tokens, min(PROBE_LENGTH, longest - 1)))).run()
        self.sync(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: StudentModule) -> None:
        """Send the weights of a checkpoint that was loaded since."""
        self.sync(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: StudentModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Send the weights for the next rollout, unless the next batch is sampled and no rollout starts with it."""
        scored, keep = outputs["batch"], outputs["targets"].keep
        row = int(keep.int().argmax())
        length = int(scored.response_mask[row].nonzero().max()) + 1
        # Without the last token: an engine generates a token after the probe, and the context may be full.
        self.trajectory = scored.tokens[row, : max(2, length - 1)].tolist()
        loader = pl_module.data.training_loader
        if pl_module.data.rollouts is None and (loader is None or loader.needs_engine()):
            pl_module.log("time/sync", self.sync(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: StudentModule) -> None:
        """Send the weights for measurements after training."""
        self.sync(pl_module)

    def teardown(self, trainer: Trainer, pl_module: StudentModule, stage: str) -> None:
        """Close the engine after the running rollout."""
        pl_module.data.queue.wait()
        if pl_module.data.samples:
            pl_module.data.engine.close()

    def sync(self, pl_module: StudentModule) -> float:
        """Send and verify the weights if the engine has another version; return the seconds this took.

        Weight sync waits for the running rollout, so that all its tokens come from the same weights.
        """
        pl_module.data.queue.wait()
        began = time.perf_counter()
        engine = pl_module.data.engine
        if pl_module.data.samples and engine.policy_version != pl_module.policy_version:
            engine.load_weights(pl_module.student_weights(), pl_module.policy_version)
            check_version(engine, pl_module.policy_version)
            self.verify(pl_module)
        return time.perf_counter() - began

    @torch.no_grad()
    def verify(self, pl_module: StudentModule) -> None:
        """Compare the log-probabilities of engine and student on the previous probe, then on a new one.

        Raises:
            UserError: if a copy of the weights is older than the student or differs from it, or if the student's
                log-probabilities are not finite.
            ContractError: if the probe of the engine is invalid.
        """
        engine = pl_module.data.engine
        problem = None
        if self.previous is not None:
            problem = Probe.of(pl_module, engine, self.previous.tokens).staleness(self.previous)
        longest = max(pl_module.data.training_prompts, key=lambda prompt: len(prompt.tokens)).tokens
        first = [*longest, pl_module.data.tokenizer.eos_token_id][: max(2, len(longest))]
        # The last tokens are those of the response, which the update changed.
        self.previous = Probe.of(pl_module, engine, (self.trajectory or first)[-PROBE_LENGTH:])
        problem = problem or self.previous.disagreement(allowed_gap(pl_module, engine))
        if problem:
            problem = f"{type(engine).__name__} got the weights of version {pl_module.policy_version}, but {problem}"
            remedy = "look for tensors that the engine did not load; raise it if the engine computes in half precision"
            raise UserError("data.engine.max_probe_gap", engine.max_probe_gap, problem, remedy)

"""Keeps the rollout engine's weights those of the student. The module adds it to every run."""

import time
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from fireopd.errors import UserError

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

PROBE_LENGTH = 256
"""Tokens of a probe, at most."""


class WeightSync(Callback):
    """Starts the engine, and sends it the student's weights before a rollout that would come from old ones.

    No sync is believed until a probe agrees: a trajectory that was just learnt from, where the new weights differ most
    from the old ones.
    """

    def __init__(self) -> None:
        """Start without a probe."""
        self.trajectory: list[int] | None = None

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
        scored, keep = outputs["batch"], outputs["targets"].keep
        row = int(keep.int().argmax())
        length = int(scored.response_mask[row].nonzero().max()) + 1
        # All but the last token: an engine has to write one of its own after a probe, and the context may be full.
        self.trajectory = scored.tokens[row, : max(2, length - 1)].tolist()
        pl_module.log("time/sync", self.sync(pl_module))

    def teardown(self, trainer: Trainer, pl_module: "FiReOPDModule", stage: str) -> None:
        """Let go of the engine, once it is done."""
        pl_module.data.next_rollout.wait()
        pl_module.data.engine.close()

    def sync(self, pl_module: "FiReOPDModule") -> float:
        """Send the weights if the engine's are of another version, and check; return the seconds that it took.

        A rollout that is under way comes to its end before: with the weights that it began with.
        """
        pl_module.data.next_rollout.wait()
        began = time.perf_counter()
        engine = pl_module.data.engine
        if engine.policy_version != pl_module.policy_version:
            engine.load_weights(pl_module.student_weights(), pl_module.policy_version)
            self.verify(pl_module)
        return time.perf_counter() - began

    @torch.no_grad()
    def verify(self, pl_module: "FiReOPDModule") -> None:
        """Compare engine and student on the probe.

        Raises:
            UserError: if a copy of the weights does not say what the student says.
        """
        engine = pl_module.data.engine
        longest = max(pl_module.data.training_prompts, key=lambda prompt: len(prompt.tokens)).tokens
        first = [*longest, pl_module.data.tokenizer.eos_token_id][: max(2, len(longest))]
        # The last tokens: those of the response, which the update was about.
        tokens = (self.trajectory or first)[-PROBE_LENGTH:]
        with pl_module.trainer.strategy.precision_plugin.forward_context():
            expected = own_logprobs(pl_module, tokens)
        for name, logprobs in engine.probe(tokens).items():
            gap = (torch.tensor(logprobs) - expected).abs().max().item()
            if not gap <= engine.max_probe_gap:
                problem = f"{name} got the weights of version {pl_module.policy_version}, but on a probe its"
                problem += f" log-probabilities are up to {gap:.3g} nats from the student's"
                remedy = "if it computes in another dtype than the student, allow for more; else it kept older weights"
                raise UserError("data.engine.max_probe_gap", engine.max_probe_gap, problem, remedy)


def own_logprobs(pl_module: "FiReOPDModule", tokens: list[int]) -> Tensor:
    """Return float32 [len(tokens) - 1]: what the student says of each token but the first."""
    sequence = torch.tensor([tokens], device=pl_module.device)
    scores = pl_module.student(sequence, torch.ones_like(sequence, dtype=torch.bool))
    return scores.logprobs[0, 1:].float().cpu()

"""Warnings about failing runs, in the log and in the trackers of the run."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from fireopd.callbacks.failure_detectors import (
    AboveLimit,
    Constant,
    Drop,
    FailureDetector,
    Increase,
    MetricHistory,
    RelativeDrop,
)
from fireopd.callbacks.tracker_media import show
from fireopd.filters import KeepAll

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

__all__ = ["HealthWatch"]


class HealthWatch(Callback):
    """Callback that warns once when a metric of the training steps indicates a failing run.

    It warns again only after the metric was inconspicuous for a whole window. Metrics are compared with the beginning
    of the run, which is part of the checkpoint.
    """

    def __init__(
        self,
        window: int = 10,
        finished_fall: float = 0.2,
        entropy_share: float = 0.1,
        length_share: float = 0.9,
        kl_factor: float = 2.0,
        gap_factor: float = 5.0,
        ess_share: float = 0.25,
    ) -> None:
        """Store the settings.

        Args:
            window: steps that are averaged; over ten batches of 64, a finish rate has a standard error of about 0.02.
            finished_fall: largest drop of the share of finished responses; 0.2 is ten standard errors.
            entropy_share: smallest fraction of the student's first entropy; learning alone may halve the entropy.
            length_share: largest mean length as a fraction of the length limit.
            kl_factor: largest reverse KL as a multiple of its lowest value, if at least 0.05 nats per token larger.
            gap_factor: the same for the largest gap between sampler and student, if at least 0.05 nats larger.
            ess_share: smallest fraction of the first effective share of the weights.
        """
        shares = {"finished_fall": finished_fall, "entropy_share": entropy_share}
        shares |= {"length_share": length_share, "ess_share": ess_share}
        for name, value in shares.items():
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        for name, value in {"kl_factor": kl_factor, "gap_factor": gap_factor}.items():
            if not value > 1:
                raise ValueError(f"{name} must be greater than 1, got {value}")
        if window < 2:
            raise ValueError(f"window must be at least 2, got {window}")
        self.window, self.length_share = window, length_share
        self.general: list[FailureDetector] = [
            Drop("rollout/finished", "fewer responses finish; inspect their texts", finished_fall),
            RelativeDrop("entropy/student", "the student loses diversity; compare pass@k", entropy_share),
            Increase("train/reverse_kl", "the student moves away from its teachers; try a lower rate", kl_factor, 0.05),
            Increase("rollout/sampler_gap", "the engine samples from other weights than are trained", gap_factor, 0.05),
            RelativeDrop("fire/weight_ess", "few tokens have most of the weight; inspect tokens/weight", ess_share),
        ]
        self.detectors = self.general
        self.histories: dict[str, MetricHistory] = {}
        self.quiet_steps: dict[str, int] = {}

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Select the detectors that depend on the run: its length limit, its rollout plan, and its filter."""
        limit = self.length_share * pl_module.data.engine.max_response_length
        meaning = "most responses are cut at the length limit"
        if pl_module.data.planning.plan.cuts_responses:
            self.detectors = [detector for detector in self.general if detector.tag != "rollout/finished"]
        else:
            self.detectors = [*self.general, AboveLimit("rollout/length", meaning, limit)]
        trajectory_filter = pl_module.method.trajectory_filter
        if not isinstance(trajectory_filter, KeepAll):
            meaning = f"{type(trajectory_filter).__name__} keeps all trajectories or none"
            self.detectors.append(Constant("fire/keep_ratio", meaning, (0.0, 1.0)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the new warnings of the step."""
        metrics = {tag: float(value) for tag, value in trainer.callback_metrics.items()}
        for warning in self.update(metrics):
            self._report(trainer, warning)

    def _report(self, trainer: Trainer, warning: str) -> None:
        step = trainer.global_step
        rank_zero_info(f"Step {step}: {warning}.")
        show(trainer, lambda media: media.warning(warning, step))

    def update(self, metrics: dict[str, float]) -> list[str]:
        """Add the metrics of a step, by tag, and return the new warnings."""
        new = []
        for detector in self.detectors:
            if detector.tag not in metrics:
                continue
            history = self.histories.setdefault(detector.tag, MetricHistory(self.window))
            history.add(metrics[detector.tag])
            warning = detector.describe(history)
            if warning is not None:
                new += [warning] if detector.tag not in self.quiet_steps else []
                self.quiet_steps[detector.tag] = 0
            elif detector.tag in self.quiet_steps:
                self.quiet_steps[detector.tag] += 1
                if self.quiet_steps[detector.tag] >= self.window:
                    del self.quiet_steps[detector.tag]
        return new

    def state_dict(self) -> dict[str, Any]:
        """Return the histories, and the warnings in effect, under the keys of earlier checkpoints."""
        courses = {tag: asdict(history) for tag, history in self.histories.items()}
        return {"courses": courses, "calm": dict(self.quiet_steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore histories and warnings; the window is a setting of this run."""
        self.histories = {
            tag: MetricHistory(**history | {"window": self.window}) for tag, history in state_dict["courses"].items()
        }
        self.quiet_steps = dict(state_dict["calm"])

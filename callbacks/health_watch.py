"""Says when a run shows the signs of a collapse: once when one begins, in the log and in TensorBoard's texts."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from fireopd.callbacks.curves import tensorboards
from fireopd.callbacks.failure_detectors import Above, Course, Fall, Rise, Stuck, Symptom, Vanishing
from fireopd.filters import KeepAll

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule


class HealthWatch(Callback):
    """Watches the numbers of the steps, changes nothing, and says each symptom once until it has gone.

    A symptom has gone when it has not shown for a whole window. Numbers are compared with the run's own beginning,
    which checkpoints keep.
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
            window: steps that are averaged; with ten batches of 64, chance moves a finish rate by some 0.02.
            finished_fall: how far the share of responses that end may fall; 0.2 is ten times what chance does.
            entropy_share: share of the student's first entropy that has to be left; learning may well halve it.
            length_share: share of the length limit that responses may reach on average: close to it, most are cut.
            kl_factor: how many times its lowest value reverse KL may become, if that is 0.05 nats a token more.
            gap_factor: likewise the largest gap between sampler and student, if that is 0.05 nats more.
            ess_share: share of the first effective share of the weights that has to be left.
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
        self.general: list[Symptom] = [
            Fall("rollout/finished", "fewer responses come to an end, so look at their texts", finished_fall),
            Vanishing("entropy/student", "the student says one thing only, so look at pass@k", entropy_share),
            Rise("train/reverse_kl", "the student moves away from its teachers; try a lower rate", kl_factor, 0.05),
            Rise("rollout/sampler_gap", "the engine samples from another student than is trained", gap_factor, 0.05),
            Vanishing("fire/weight_ess", "a few tokens have most of the weight, so look at tokens/weight", ess_share),
        ]
        self.symptoms = self.general
        self.courses: dict[str, Course] = {}
        self.calm: dict[str, int] = {}

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Add what depends on the run: its length limit, and whether its filter should drop."""
        limit = self.length_share * pl_module.data.engine.max_response_length
        self.symptoms = [*self.general, Above("rollout/length", "most responses are cut at the length limit", limit)]
        judge = pl_module.method.trajectory_filter
        if not isinstance(judge, KeepAll):
            meaning = f"{type(judge).__name__} tells no trajectories apart"
            self.symptoms.append(Stuck("fire/keep_ratio", meaning, (0.0, 1.0)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the numbers of the step."""
        numbers = {tag: float(value) for tag, value in trainer.callback_metrics.items()}
        for warning in self.look(numbers):
            rank_zero_info(f"Step {trainer.global_step}: {warning}.")
            for logger in tensorboards(trainer):
                logger.experiment.add_text("health", warning, trainer.global_step)

    def look(self, numbers: dict[str, float]) -> list[str]:
        """Take in the numbers of a step by tag, and return the warnings that are new."""
        new = []
        for symptom in self.symptoms:
            if symptom.tag not in numbers:
                continue
            course = self.courses.setdefault(symptom.tag, Course(self.window))
            course.add(numbers[symptom.tag])
            warning = symptom.describe(course)
            if warning is not None:
                new += [warning] if symptom.tag not in self.calm else []
                self.calm[symptom.tag] = 0
            elif symptom.tag in self.calm:
                self.calm[symptom.tag] += 1
                if self.calm[symptom.tag] >= self.window:
                    del self.calm[symptom.tag]
        return new

    def state_dict(self) -> dict[str, Any]:
        """Return the courses, and which symptoms show."""
        return {"courses": {tag: asdict(course) for tag, course in self.courses.items()}, "calm": dict(self.calm)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on watching."""
        self.courses = {
            tag: Course(**course | {"window": self.window}) for tag, course in state_dict["courses"].items()
        }
        self.calm = dict(state_dict["calm"])

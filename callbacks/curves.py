"""TensorBoard beyond scalars: histograms of weights and entropies, and a page with the answers at a glance."""

from typing import TYPE_CHECKING, Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

if TYPE_CHECKING:
    from fireopd.module import FiReOPDModule
    from fireopd.targets import Targets
    from fireopd.types import ScoredBatch


class Curves(Callback):
    """Draws histograms every so many batches, and lays out the custom-scalars page."""

    def __init__(self, every_n_steps: int = 10) -> None:
        """Store the settings.

        Args:
            every_n_steps: batches between two histograms.
        """
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: "FiReOPDModule") -> None:
        """Lay out the custom-scalars page."""
        teachers, tasks = list(pl_module.teachers), pl_module.data.tasks
        for logger in tensorboards(trainer):
            logger.experiment.add_custom_scalars(page(teachers, tasks))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: "FiReOPDModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw the histograms."""
        if batch_idx % self.every_n_steps == 0:
            for logger in tensorboards(trainer):
                for tag, values in distributions(outputs["batch"], outputs["targets"]).items():
                    logger.experiment.add_histogram(tag, values, trainer.global_step)


def tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """Return the TensorBoard loggers of a run, on the process that writes."""
    return [x for x in trainer.loggers if isinstance(x, TensorBoardLogger)] if trainer.is_global_zero else []


def distributions(batch: "ScoredBatch", targets: "Targets") -> dict[str, Any]:
    """Return, by tag, the values that are worth a histogram: those of response tokens, and of trajectories.

    The tags are not those of scalars: TensorBoard shows only one of two things that share a tag.
    """
    shown = {"tokens/weight": targets.weight[targets.mask], "tokens/advantage": targets.advantage[targets.mask]}
    for name, mask in (("student_entropy", batch.student_mask), ("teacher_entropy", batch.response_mask)):
        if name in batch.signals:
            shown[f"tokens/{name}"] = batch.signals[name][mask]
    shown["trajectories/length"] = batch.lengths.float()
    finite = {tag: values[values.isfinite()].cpu() for tag, values in shown.items()}
    return {tag: values for tag, values in finite.items() if values.numel() > 0}


def page(teachers: list[str], tasks: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the layout of the custom-scalars page: one chapter for each question."""
    kl = [f"kl/{name}" for name in teachers]
    keep = ["fire/keep_ratio", *(f"fire/keep_ratio/{name}" for name in teachers)]
    seconds = ["time/rollout", "time/student", *(f"time/teacher/{name}" for name in teachers), "time/update"]
    return {
        "1 Does it learn?": {
            "held-out accuracy (avg@k)": ["Multiline", [f"val/{task}/avg_at_k" for task in tasks]],
            "reverse KL to each teacher, nats a token": ["Multiline", kl],
        },
        "2 What is dropped?": {
            "share of trajectories kept": ["Multiline", keep],
            "length of kept and dropped responses": ["Multiline", ["rollout/length_kept", "rollout/length_dropped"]],
        },
        "3 How are weights spread?": {
            "effective share of tokens": ["Multiline", ["fire/weight_ess"]],
            "largest weight": ["Multiline", ["fire/weight_max"]],
        },
        "4 Is it healthy?": {
            "share of responses that end": ["Multiline", ["rollout/finished"]],
            "entropy, nats a token": ["Multiline", ["entropy/student", "entropy/teacher"]],
        },
        "5 Where does the time go?": {"seconds a step": ["Multiline", seconds]},
    }

"""Charts of a run by question: those of TensorBoard's custom-scalars page and of the report of a run."""

from collections.abc import Sequence, Set

from fireopd.training.step_metrics import QUARTERS
from fireopd.types.signals import ENTROPIES

__all__ = ["charts_by_chapter"]


def charts_by_chapter(
    teachers: Sequence[str], tasks: Sequence[str], signals: Set[str]
) -> dict[str, dict[str, list[str]]]:
    """Return the tags of each chart, by chapter and title.

    Args:
        teachers: names of the teachers.
        tasks: tasks of the held-out prompts.
        signals: computed signals; charts of other signals are left out.
    """

    def by_teacher(tag: str) -> list[str]:
        return [f"{tag}/{name}" for name in teachers]

    def by_position(measure: str) -> list[str]:
        return [f"position/{quarter}/{measure}" for quarter in QUARTERS]

    rewards = ["rollout/reward_kept", "rollout/reward_dropped"] if "rewards" in signals else []
    entropies = [f"entropy/{name.removesuffix('_entropy')}" for name in sorted(ENTROPIES & signals)]
    seconds = ["time/rollout", *by_teacher("time/teacher"), "time/student", "time/update", "time/sync"]
    chapters: dict[str, dict[str, list[str]]] = {
        "1 Does it learn?": {
            "held-out accuracy (avg@k)": [f"val/{task}/avg_at_k" for task in tasks],
            "reverse KL to each teacher, nats a token": by_teacher("kl"),
            "reverse KL by quarter of the response, nats a token": by_position("kl"),
        },
        "2 What is dropped?": {
            "share of trajectories kept": ["fire/keep_ratio", *by_teacher("fire/keep_ratio")],
            "length of kept and dropped responses, tokens": ["rollout/length_kept", "rollout/length_dropped"],
            "reward of kept and dropped responses": rewards,
        },
        "3 How are weights spread?": {
            "effective share of tokens": ["fire/weight_ess", *by_teacher("fire/weight_ess")],
            "mean weight by quarter of the response": by_position("weight"),
            "largest weight": ["fire/weight_max"],
        },
        "4 Where does the time go?": {
            "seconds a step": seconds,
            "response tokens a second": ["train/tokens_per_s"],
        },
        "5 Is it healthy?": {
            "share of responses that end": ["rollout/finished", *by_teacher("rollout/finished")],
            "length, tokens": ["rollout/length", *by_teacher("rollout/length")],
            "entropy, nats a token": entropies,
            "student's entropy by quarter of the response, nats": (
                by_position("entropy_student") if "student_entropy" in signals else []
            ),
            "norm of the gradient": ["train/grad_norm"],
            "largest gap between sampler and student, nats": ["rollout/sampler_gap"],
        },
    }
    return {title: {name: tags for name, tags in charts.items() if tags} for title, charts in chapters.items()}

"""Teacher interface. Entry-point group: `fireopd.teachers`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch

from fireopd.errors import UserError
from fireopd.models.distributions import TeacherDistributions
from fireopd.models.scorer import CausalScorer
from fireopd.types import Prompt, RolloutBatch, TokenScores


def unsharded(scorer: CausalScorer) -> None:
    """Leave a model whole."""


class Teacher(ABC):
    """A frozen model that says how likely it finds each token of a trajectory."""

    @abstractmethod
    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Raise `UserError` if the teacher cannot read what the student writes. Loads no weights.

        Args:
            key: the setting that the teacher comes from, for example `model.teachers.math`.
            student: the student's model.
            prompts: all that the teacher will judge trajectories of.
            response_length: tokens of the longest response.
        """

    @abstractmethod
    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None]) -> None:
        """Load the weights; the constructor only stores settings. A second call does nothing.

        Args:
            key: the setting that the teacher comes from.
            device: of this process.
            shard: shards a model over the processes where they share it; else does nothing.
        """

    @abstractmethod
    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Return the scores of every response token, float32 [B, L], at the temperature of the rollouts.

        Every process calls, with rows of its own or none, since the processes may share the model.
        """

    def check_distributions(self, key: str, student: str) -> None:
        """Raise `UserError` if the teacher's distributions cannot be compared with the student's; loads no weights.

        A teacher that overrides this overrides `score_with_distributions` too.

        Args:
            key: the setting that the teacher comes from.
            student: the student's model.
        """
        problem = "it tells of sampled tokens alone, and a strategy compares distributions over the whole vocabulary"
        raise UserError(key, type(self).__name__, problem, "use an HFTeacher, or strategies that do without")

    def score_with_distributions(
        self, rollouts: RolloutBatch, *, entropy: bool
    ) -> tuple[TokenScores, TeacherDistributions]:
        """Return what `score` does, with what it takes to say each token's distribution again. Every process calls."""
        raise NotImplementedError(f"{type(self).__name__} gives no distributions")

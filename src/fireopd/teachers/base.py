"""Teacher interface. Entry-point group: `fireopd.teachers`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from fireopd.engines import MemoryPart, RolloutEngine
from fireopd.errors import UserError
from fireopd.models.distributions import TeacherDistributions
from fireopd.models.scorer import CausalScorer
from fireopd.models.student_versions import StudentVersions
from fireopd.teachers.sampling import TeacherSampler
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["Teacher", "leave_unsharded"]


def leave_unsharded(scorer: CausalScorer) -> None:
    """Do nothing. Default of `shard` where models are not sharded."""


class Teacher(ABC):
    """Model that returns the log-probability of each token of a trajectory, without gradient."""

    @abstractmethod
    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Raise `UserError` if the teacher cannot score the student's responses. Loads no weights.

        Args:
            key: setting that holds the teacher, for example `model.teachers.math`.
            student: name of the student model.
            prompts: all prompts whose trajectories the teacher will score.
            response_length: maximum response length, tokens.
        """

    @abstractmethod
    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None]) -> None:
        """Load the weights; the constructor only stores settings. A second call does nothing.

        Args:
            key: setting that holds the teacher.
            device: device of this process.
            shard: function that moves a loaded model to its place, for example shards it over the processes, or does
                nothing. A `fireopd.models.placement.Placement` also loads the model.
        """

    @abstractmethod
    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Return the scores of all response tokens, float32 [B, L], at the temperature of the rollouts.

        Every process calls with its own rows, possibly none, since the model may be sharded.
        """

    def prompt_tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the token ids of a prompt as the teacher sees it: those of the student, unless overridden."""
        return prompt.tokens

    def prefetch(self, rollouts: RolloutBatch) -> None:  # noqa: B027 - for teachers in other processes
        """Begin to score trajectories, and return at once; a later `score` returns their scores.

        Called with single trajectories while the rollout still runs, possibly from several threads, and with the rows
        of the teacher before any teacher scores. Never a collective operation. A teacher in this process does nothing.
        """

    def close(self) -> None:  # noqa: B027 - most teachers hold no connections
        """Release connections at the end of the run."""

    def memory(self, shards: int) -> dict[str, MemoryPart] | None:
        """Return the expected memory of the teacher in this process, by name of the part; None if it is not known.

        Args:
            shards: number of processes that share one copy of a model.
        """
        return None

    @property
    def parts(self) -> Mapping[str, "Teacher"]:
        """Teachers that this one consists of, by their settings below its own; empty for a single model."""
        return {}

    def replace_parts(self, parts: Mapping[str, "Teacher"]) -> None:
        """Use other objects of equal settings as parts. A teacher that overrides `parts` also overrides this method."""
        raise NotImplementedError(f"{type(self).__name__} has no parts")

    def models(self, key: str) -> Iterator[tuple[str, "Teacher"]]:
        """Yield the single models of the teacher: itself, or those of its parts, by their settings.

        Args:
            key: setting that holds the teacher.
        """
        if not self.parts:
            yield key, self
        for name, part in self.parts.items():
            yield from part.models(f"{key}.{name}")

    def reads_student(self, student: str, dtype: str, *, adapter: bool) -> bool:
        """Return whether the teacher scores with weights of the student: `attach` is called in the place of `setup`.

        A teacher that overrides this method also overrides `attach`.

        Args:
            student: model folder, hub name, or embedded model.
            dtype: dtype of its parameters.
            adapter: whether an adapter is trained on top of its weights.
        """
        return False

    def attach(self, versions: StudentVersions) -> None:
        """Score with a version of the student. Called once, on every process, after the student is loaded."""
        raise NotImplementedError(f"{type(self).__name__} does not read the student")

    def check_entropy(self, key: str, student: str) -> None:  # noqa: B027 - most teachers return entropies
        """Raise `UserError` if the teacher cannot return entropies. Loads no weights.

        Args:
            key: setting that holds the teacher.
            student: name of the student model.
        """

    def check_distributions(self, key: str, student: str) -> None:
        """Raise `UserError` if the teacher cannot return distributions comparable to the student's. Loads no weights.

        A teacher that overrides this method also overrides `score_with_distributions`.

        Args:
            key: setting that holds the teacher.
            student: name of the student model.
        """
        problem = "it only scores sampled tokens, but a strategy compares distributions over the whole vocabulary"
        raise UserError(key, type(self).__name__, problem, "use an HFTeacher, or strategies without distributions")

    def score_with_distributions(
        self, rollouts: RolloutBatch, *, entropy: bool
    ) -> tuple[TokenScores, TeacherDistributions]:
        """Return the scores of all response tokens and the distributions at these tokens. Every process calls."""
        raise NotImplementedError(f"{type(self).__name__} does not return distributions")

    @property
    def samples_here(self) -> bool:
        """True if the teacher samples in this process, from weights that it has loaded."""
        return True

    def check_sampling(self, key: str, student: str) -> None:
        """Raise `UserError` if the teacher cannot sample responses. Loads no weights.

        A teacher that overrides this method also overrides `sampler`.

        Args:
            key: setting that holds the teacher.
            student: name of the student model.
        """
        problem = "it only scores tokens, but data.plan lets it write some"
        raise UserError(key, type(self).__name__, problem, "use an HFTeacher, or another data.plan")

    def sampler(self, like: RolloutEngine, vocabulary: int) -> TeacherSampler:
        """Return a sampler on the loaded weights.

        Args:
            like: engine of the student, whose length and sampling distribution the sampler has.
            vocabulary: number of token ids of the student, the first ones of the teacher.
        """
        raise NotImplementedError(f"{type(self).__name__} does not sample")

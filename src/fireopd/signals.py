"""The signals: what the loop can tell a strategy about each token or trajectory, by name.

A strategy lists in `requires` the signals that it reads. The loop computes the union of what is declared and no more.
"""

from collections.abc import Iterable
from typing import ClassVar, Self

from fireopd.errors import UserError

SIGNALS: dict[str, str] = {
    "sampling_logprobs": "float32 [N, L]: log-probability of each token when the engine sampled it",
    "student_logprobs": "float32 [N, L]: the same under the student that is about to be updated",
    "student_entropy": "float32 [N, L]: entropy of the student's distribution that token t was drawn from",
    "teacher_logprobs": "float32 [N, L]: log-probability of each token under the row's own teacher",
    "teacher_entropy": "float32 [N, L]: entropy of the teacher's distribution at token t",
    "base_logprobs": "float32 [N, L]: log-probability of each token under the base model",
    "reverse_kl": "float32 [N, L]: KL(student || teacher) over the whole vocabulary before token t",
    "topk_overlap": "float32 [N, L]: share of the student's top_k likeliest tokens that are among the teacher's",
    "student_topk_mass": "float32 [N, L]: the teacher's probability of the student's top_k likeliest tokens",
    "rewards": "float32 [N]: the verifier's grade of the trajectory, in [0, 1]",
}
"""Name and meaning of every signal. What has a logarithm in it is in nats; [N, L] is 0 off the response mask."""

ENTROPIES = frozenset({"student_entropy", "teacher_entropy"})
JOINT = frozenset({"reverse_kl", "topk_overlap", "student_topk_mass"})
"""Signals of student and teacher together, for which the teacher's distribution is needed at the student's pass."""
OF_STUDENT = frozenset({"student_logprobs", "student_entropy"}) | JOINT
"""Signals for which the student has to read the trajectories."""
PER_TRAJECTORY = frozenset({"rewards"})


class Strategy:
    """What filters, weighters and objectives have in common: they read signals, and say which."""

    setting: ClassVar[str]
    """The setting of a run that such a strategy stands in."""
    check: ClassVar[str]
    """The function of `fireopd.testing` that examines such a strategy."""

    @property
    def requires(self) -> frozenset[str]:
        """The names of the signals that it reads. A subclass may simply assign a frozenset."""
        return frozenset()

    @property
    def by_trajectory(self) -> bool:
        """Whether its answer about a trajectory depends on that trajectory alone: it may then be asked piece by piece.

        A subclass may simply assign True. What a class says is not inherited: its subclasses may answer otherwise.
        """
        return False

    def __init_subclass__(cls) -> None:
        """Forget what the parent says of itself."""
        super().__init_subclass__()
        if "by_trajectory" not in vars(cls):
            cls.by_trajectory = Strategy.by_trajectory  # type: ignore[method-assign]


class ContractError(UserError):
    """A strategy answers or reads what its contract forbids, which the strategy's author can mend."""

    @classmethod
    def by(cls, strategy: Strategy, problem: str, remedy: str) -> Self:
        """Return the error of a strategy; the remedy starts with a verb in the imperative."""
        name = type(strategy).__name__
        return cls(
            strategy.setting, name, problem, f"{remedy}; fireopd.testing.{strategy.check} examines all of {name}"
        )


class UndeclaredSignalError(ContractError):
    """A strategy reads a signal that it does not list in `requires`."""


def union(strategies: Iterable[Strategy]) -> frozenset[str]:
    """Return all the signals that any of the strategies declares.

    Raises:
        ValueError: if one of them declares a signal that does not exist.
    """
    declared: frozenset[str] = frozenset()
    for strategy in strategies:
        unknown = sorted(strategy.requires - SIGNALS.keys())
        if unknown:
            name = type(strategy).__name__
            raise ValueError(f"{name}.requires: {unknown[0]!r} is no signal. The signals are {', '.join(SIGNALS)}.")
        declared |= strategy.requires
    return declared

"""Mixture of teachers: several teachers judge one trajectory.

With an arithmetic mean, the log-probability of a sampled token follows from those of the parts, whichever teachers they
are. Its entropy, and all of a geometric mean, need the whole distributions of the parts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fireopd.distributed import collectives
from fireopd.errors import UserError
from fireopd.models.distributions import TeacherDistributions, TeacherHead
from fireopd.models.mixture_head import Mean, MixtureHead, score_with_head
from fireopd.models.scorer import CHUNK_LOGITS, CausalScorer
from fireopd.teachers.base import Teacher, leave_unsharded
from fireopd.teachers.contract import checked_distributions, checked_scores
from fireopd.teachers.huggingface import MISSING_TOKEN_LOGPROB
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["MixtureTeacher"]

Weights = tuple[tuple[str, float], ...]
"""Teachers of a row with their weights, which are greater than 0 and add up to 1."""


@dataclass(frozen=True, slots=True)
class _RowScores:
    """Scores of one row by one teacher."""

    logprobs: Tensor
    """float32 [l]. Log-probabilities, l at least the length of the row."""
    entropy: Tensor | None
    """float32 [l]. Entropies, if requested."""
    hidden_states: Tensor | None
    """[response tokens, d]. Last hidden states, with distributions."""
    head: TeacherHead | None
    """Output head, with distributions."""


@dataclass
class MixtureTeacher(Teacher):
    """Weighted mean of the distributions of several teachers. Each row is scored by the teachers of its task."""

    teachers: dict[str, Teacher]
    """Teachers by name."""
    weights: dict[str, float] = field(default_factory=dict)
    """Relative weight of each teacher, at least 0; empty for equal weights."""
    task_weights: dict[str, dict[str, float]] = field(default_factory=dict)
    """Weights of the rows of a task, in the place of `weights`, by task. A teacher without a weight does not score."""
    mean: Mean = "arithmetic"
    """`arithmetic`, or `geometric`: the normalised product of powers, the distribution with the smallest weighted sum
    of reverse KL divergences to the parts."""
    chunk_logits: int = CHUNK_LOGITS
    """Number of logits (tokens x vocabulary) of a part in memory at a time; at least those of one token."""
    key: str = field(default="model.teachers", init=False, compare=False, repr=False)
    """Setting that holds the teacher, after `check` or `setup`."""

    def __post_init__(self) -> None:
        """Check names and weights."""
        if not self.teachers:
            raise ValueError("teachers must not be empty, got {}")
        if self.chunk_logits < 1:
            raise ValueError(f"chunk_logits must be at least 1, got {self.chunk_logits}")
        given = {"weights": self.weights} if self.weights else {}
        given |= {f"task_weights.{task}": own for task, own in self.task_weights.items()}
        for name, weights in given.items():
            unknown = sorted(weights.keys() - self.teachers.keys())
            if unknown:
                raise ValueError(f"{name} must name teachers of {', '.join(self.teachers)}, got {unknown[0]!r}")
            if not all(0 <= weight < math.inf for weight in weights.values()) or not sum(weights.values()) > 0:
                raise ValueError(f"{name} must be at least 0, and one of them greater than 0, got {weights}")
        if self.weights and self.weights.keys() != self.teachers.keys():
            missing = next(name for name in self.teachers if name not in self.weights)
            raise ValueError(f"weights must name all teachers, got none of {missing!r}; 0 leaves a teacher out")

    @property
    def parts(self) -> Mapping[str, Teacher]:
        """Teachers of the mixture."""
        return {f"teachers.{name}": teacher for name, teacher in self.teachers.items()}

    def replace_parts(self, parts: Mapping[str, Teacher]) -> None:
        """Use other objects of equal settings."""
        self.teachers = {name: parts[f"teachers.{name}"] for name in self.teachers}

    def weights_of(self, task: str) -> Weights:
        """Return the teachers of a task with their weights."""
        given = self.task_weights.get(task, self.weights or dict.fromkeys(self.teachers, 1.0))
        total = sum(given.values())
        return tuple((name, given[name] / total) for name in self.teachers if given.get(name, 0) > 0)

    @property
    def _mixes(self) -> bool:
        """True if a row may have several teachers. A property of the settings, so that all processes agree."""
        given = [*self.task_weights.values(), self.weights or dict.fromkeys(self.teachers, 1.0)]
        return any(sum(weight > 0 for weight in weights.values()) > 1 for weights in given)

    def check(self, key: str, student: str, prompts: Sequence[Prompt], response_length: int) -> None:
        """Check each part with the prompts that it scores; a geometric mean needs distributions of all parts."""
        self.key = key
        tasks = {prompt.task for prompt in prompts}
        unknown = [task for task in self.task_weights if prompts and task not in tasks]
        if unknown:
            problem = f"no prompt of this teacher has the task; the tasks are {', '.join(sorted(tasks))}"
            raise UserError(f"{key}.task_weights", unknown[0], problem, "fix the name, or remove it")
        for name, part in self.teachers.items():
            own = [prompt for prompt in prompts if name in dict(self.weights_of(prompt.task))]
            part.check(f"{key}.teachers.{name}", student, own, response_length)
        if self.mean == "geometric":
            self._check_parts(key, student, "a geometric mean", "set mean arithmetic, or use an HFTeacher")

    def check_entropy(self, key: str, student: str) -> None:
        """Raise `UserError` if the entropy of the mixture is needed, and a part gives no distributions."""
        self._check_parts(key, student, "the entropy of a mixture", "use strategies without teacher_entropy")

    def check_distributions(self, key: str, student: str) -> None:
        """Check the parts."""
        for name, part in self.teachers.items():
            part.check_distributions(f"{key}.teachers.{name}", student)

    def _check_parts(self, key: str, student: str, reader: str, remedy: str) -> None:
        for name, part in self.teachers.items() if self._mixes else ():
            own = f"{key}.teachers.{name}"
            try:
                part.check_distributions(own, student)
            except UserError as error:
                problem = f"{reader} needs distributions over the whole vocabulary, which this teacher does not give"
                raise UserError(own, type(part).__name__, problem, remedy) from error

    def setup(self, key: str, device: torch.device, shard: Callable[[CausalScorer], None] = leave_unsharded) -> None:
        """Set up the parts."""
        self.key = key
        for name, part in self.parts.items():
            part.setup(f"{key}.{name}", device, shard)

    def prefetch(self, rollouts: RolloutBatch) -> None:
        """Let the teachers of each row begin to score it."""
        weights = [dict(self.weights_of(task)) for task in rollouts.tasks]
        for name, teacher in self.teachers.items():
            rows = [row for row, own in enumerate(weights) if name in own]
            if rows:
                teacher.prefetch(rollouts.select(torch.tensor(rows, device=rollouts.tokens.device)))

    def close(self) -> None:
        """Close the parts."""
        for teacher in self.teachers.values():
            teacher.close()

    def score(self, rollouts: RolloutBatch, *, entropy: bool) -> TokenScores:
        """Score all response tokens."""
        needed = self._mixes and (entropy or self.mean == "geometric")
        return self._score(rollouts, entropy=entropy, distributions=needed)[0]

    def score_with_distributions(
        self, rollouts: RolloutBatch, *, entropy: bool
    ) -> tuple[TokenScores, TeacherDistributions]:
        """Score all response tokens, and return the hidden states of the parts, concatenated."""
        scores, distributions = self._score(rollouts, entropy=entropy, distributions=True)
        assert distributions is not None
        return scores, distributions

    def _score(
        self, rollouts: RolloutBatch, *, entropy: bool, distributions: bool
    ) -> tuple[TokenScores, TeacherDistributions | None]:
        weights = [self.weights_of(task) for task in rollouts.tasks]
        parts = self._score_parts(rollouts, weights, entropy=entropy, distributions=distributions)
        logprobs = torch.zeros_like(rollouts.sampling_logprobs)
        entropies = torch.zeros_like(logprobs) if entropy else None
        states, heads = list[Tensor](), list[TeacherHead]()
        known: dict[tuple[object, ...], MixtureHead] = {}
        for row, own in enumerate(weights):
            found = [parts[name][row] for name, _ in own]
            width = min(len(part.logprobs) for part in found)
            terms = [part.logprobs[:width] for part in found]
            logprobs[row, :width] = _log_mean(terms, [weight for _, weight in own])
            if entropies is not None and len(found) == 1 and found[0].entropy is not None:
                entropies[row, :width] = found[0].entropy[:width]
            of_row = [(part.hidden_states, part.head) for part in found if part.hidden_states is not None and part.head]
            if distributions and len(found) == 1:
                states.append(of_row[0][0])
                heads.append(of_row[0][1])
            elif distributions:
                identity = (own, *(id(head) for _, head in of_row))
                new = MixtureHead(tuple(head for _, head in of_row), tuple(weight for _, weight in own), self.mean)
                head = known.setdefault(identity, new)
                states.append(head.join([own_states for own_states, _ in of_row]))
                heads.append(head)
        if not distributions:
            return TokenScores(logprobs, entropies), None
        for head in known.values() if entropy or self.mean == "geometric" else ():
            rows = [row for row, other in enumerate(heads) if other is head]
            self._score_mixed(rollouts, head, rows, [states[row] for row in rows], logprobs, entropies)
        return TokenScores(logprobs, entropies), TeacherDistributions(tuple(states), tuple(heads))

    def _score_parts(
        self, rollouts: RolloutBatch, weights: Sequence[Weights], *, entropy: bool, distributions: bool
    ) -> dict[str, dict[int, _RowScores]]:
        """Return the scores of each teacher by row. Models may be sharded, so that every process calls each."""
        parts: dict[str, dict[int, _RowScores]] = {}
        for name, teacher in self.teachers.items():
            rows = [row for row, own in enumerate(weights) if name in dict(own)]
            if not rows and collectives.world_size() == 1:
                continue
            key = f"{self.key}.teachers.{name}"
            part = rollouts.select(torch.tensor(rows, dtype=torch.int64, device=rollouts.tokens.device))
            known = None
            if distributions:
                answer = teacher.score_with_distributions(part, entropy=entropy)
                scores, known = checked_distributions(key, teacher, answer, part, entropy=entropy)
            else:
                scores = checked_scores(key, teacher, teacher.score(part, entropy=entropy), part, entropy=entropy)
            parts[name] = {
                row: _RowScores(
                    scores.logprobs[place],
                    None if scores.entropy is None else scores.entropy[place],
                    None if known is None else known.hidden_states[place],
                    None if known is None else known.heads[place],
                )
                for place, row in enumerate(rows)
            }
        return parts

    def _score_mixed(
        self,
        rollouts: RolloutBatch,
        head: MixtureHead,
        rows: Sequence[int],
        states: Sequence[Tensor],
        logprobs: Tensor,
        entropies: Tensor | None,
    ) -> None:
        """Write entropies, and the log-probabilities of a geometric mean, of the rows of a head, in place."""
        mask = torch.zeros_like(rollouts.response_mask)
        mask[list(rows)] = rollouts.response_mask[list(rows)]
        mask[:, 0] = False
        targets = rollouts.tokens[mask]
        known = targets.clamp(max=head.size - 1)
        values = score_with_head(head, torch.cat(list(states)), known, rollouts.sampling.temperature, self.chunk_logits)
        if entropies is not None:
            entropies[mask] = values[1].to(entropies.dtype)
        if self.mean == "geometric":
            logprobs[mask] = values[0].masked_fill(targets >= head.size, MISSING_TOKEN_LOGPROB).to(logprobs.dtype)


def _log_mean(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the logarithm of the weighted arithmetic mean of exp(terms)."""
    if len(terms) == 1:
        return terms[0]
    return torch.logsumexp(torch.stack([term + math.log(w) for term, w in zip(terms, weights, strict=True)]), 0)

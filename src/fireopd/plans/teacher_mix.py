"""Mixes of responses of the student and of teachers: GKD, SG-OPD."""

from collections.abc import Sequence
from dataclasses import dataclass

from fireopd.plans.base import RolloutPlan, ends_of, value_of
from fireopd.plans.rows import Draft, RolloutContext, RowPlan
from fireopd.types import Prompt, Source
from fireopd.types.schedule import Schedule

__all__ = ["TeacherMix", "VerifiedTeacherMix"]


@dataclass(frozen=True)
class TeacherMix(RolloutPlan):
    """A share of the responses is written by a teacher: GKD (arXiv 2306.13649), where it is 1 - lambda.

    Each response is a teacher's with this probability, independently, by a hash of seed, batch, prompt and index; the
    paper draws once per batch. At 0, the rollouts are those of plain on-policy distillation. At 1, with a divergence
    over the vocabulary, this is supervised distillation on the teacher's responses.
    """

    share: float | Schedule = 0.5
    """Probability that a teacher writes a response, in [0, 1]."""
    teacher: str | None = None
    """Name of the teacher that writes; null for that of the prompt."""

    sources = frozenset({Source.STUDENT, Source.TEACHER})

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        first, last = ends_of("share", self.share)
        if not (0 <= first <= 1 and 0 <= last <= 1):
            raise ValueError(f"share must be in [0, 1], got {self.share}")

    def writers(self, prompt: Prompt) -> frozenset[str]:
        """Return the teacher that writes."""
        return frozenset({self.teacher or prompt.teacher})

    def chosen(self, prompt: Prompt, now: RolloutContext) -> list[bool]:
        """Return for each response whether a teacher writes it."""
        share = value_of(self.share, now.policy_version)
        return [now.uniform(prompt, index, "TeacherMix") < share for index in range(now.responses)]

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return rows of student and teacher."""
        name = self.teacher or prompt.teacher
        return [RowPlan(now.max_length, sampler=name if chosen else None) for chosen in self.chosen(prompt, now)]


@dataclass(frozen=True)
class VerifiedTeacherMix(TeacherMix):
    """As `TeacherMix`, with responses of the teacher that the verifier approves: phases of SG-OPD (arXiv 2606.09304).

    Where the teacher's response is not correct, the student writes one. The paper mixes such responses early in the run
    and ends with the student alone: `share: {from: 0.5, to: 0, steps: 100}`. The text of the paper is not available;
    share and length of its phases are not known.
    """

    threshold: float = 0.5
    """Responses with a reward above the threshold count as correct."""

    has_drafts = True
    grades_drafts = True

    def drafts(self, prompt: Prompt, now: RolloutContext) -> list[RowPlan]:
        """Return a response of the teacher for each that it is to write."""
        return [RowPlan(now.max_length, sampler=self.teacher or prompt.teacher)] * sum(self.chosen(prompt, now))

    def rows(self, prompt: Prompt, now: RolloutContext, drafts: Sequence[Draft]) -> list[RowPlan]:
        """Return correct responses of the teacher, and rows of the student in the place of all others."""
        written = iter(drafts)
        rows = []
        for chosen in self.chosen(prompt, now):
            draft = next(written) if chosen else None
            correct = draft is not None and draft.reward is not None and draft.reward > self.threshold
            prefix = draft.response if draft is not None and correct else None
            rows.append(RowPlan(now.max_length if prefix is None else len(prefix.tokens), prefix=prefix))
        return rows

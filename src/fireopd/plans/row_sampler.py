"""Sampling of planned rows by one model: the student, or a teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fireopd.engines import RolloutEngine, RowRequest
from fireopd.engines.base import ignore_response
from fireopd.engines.contract import checked_responses
from fireopd.errors import UserError, named_in_traceback
from fireopd.plans.rows import RowPlan
from fireopd.teachers.sampling import TeacherSampler
from fireopd.types import Prompt, Response, Source

__all__ = ["PlannedRow", "RowSampler"]


class PlannedRow(NamedTuple):
    """A row of a rollout."""

    prompt: Prompt
    """Prompt of the trajectory."""
    row: RowPlan
    """Plan of the row."""
    seed: int
    """Seed of the sampled part."""
    place: int
    """Place of the prompt in the rollout."""


@dataclass(frozen=True)
class RowSampler:
    """Samples the rest of rows after their prefixes."""

    key: str
    """Setting that holds the model, for messages."""
    engine: RolloutEngine
    """Engine of the model."""
    vocabulary: int
    """Number of token ids of the student."""
    teacher: TeacherSampler | None = None
    """The teacher that the engine samples from; None for the student."""

    def sample(
        self, rows: Sequence[PlannedRow], announce: Callable[[PlannedRow, Response], None] | None
    ) -> list[Response]:
        """Return the response of each row, in order, its prefix included.

        Args:
            rows: rows of this sampler, not complete.
            announce: called with each row and its response when it is complete.

        Raises:
            ContractError: if a response is invalid.
            UserError: if a row is longer than the context of the teacher.
        """
        requests = [self.request(row) for row in rows]

        def pass_on(place: int, rest: Response) -> None:
            """Announce a row that the engine has completed."""
            if announce is not None:
                [response] = self._complete(rows[place : place + 1], requests[place : place + 1], [rest])
                announce(rows[place], response)

        self.engine.announce = ignore_response if announce is None else pass_on
        with named_in_traceback(self.key, self.engine, f"samples {len(requests)} responses"):
            sampled = self.engine.sample(requests)
        return self._complete(rows, requests, sampled)

    def request(self, planned: PlannedRow) -> RowRequest:
        """Return the request for the rest of a row."""
        prompt, row = planned.prompt, planned.row
        read = row.prompt or (prompt.tokens if self.teacher is None else self.teacher.prompt_tokens(prompt))
        longest, limit = len(read) + row.max_length, None if self.teacher is None else self.teacher.limit
        if limit is not None and longest > limit:
            problem = f"the teacher reads {longest} tokens for the prompt {prompt.id}, and its context has {limit}"
            raise UserError(self.key, longest, problem, "shorten the prompt, or data.engine.max_response_length")
        temperature = self.engine.temperature if row.temperature is None else row.temperature
        start = replace(prompt, tokens=(*read, *row.start))
        return RowRequest(start, planned.seed, row.max_length - len(row.start), temperature)

    def _complete(self, rows: Sequence[PlannedRow], requests: Sequence[RowRequest], sampled: object) -> list[Response]:
        """Return checked responses with their prefixes, and their authors."""
        prompts, limits = [request.prompt for request in requests], [request.max_length for request in requests]
        checked = checked_responses(self.engine, sampled, prompts, self.vocabulary, self.key, limits)
        own = [rest.by(Source.STUDENT if self.teacher is None else Source.TEACHER) for rest in checked]
        prefixes = [row.row.prefix for row in rows]
        return [rest if start is None else start.followed_by(rest) for start, rest in zip(prefixes, own, strict=True)]

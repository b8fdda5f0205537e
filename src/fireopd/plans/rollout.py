"""Rollouts by a plan: drafts, rows, and the sampling of each row by its sampler."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.distributed import collectives
from fireopd.engines import RolloutEngine
from fireopd.engines.rollout import collate, row_seed
from fireopd.plans.base import RolloutPlan
from fireopd.plans.contract import RowLimits, checked_rows
from fireopd.plans.fixed import FixedPlan
from fireopd.plans.row_sampler import PlannedRow, RowSampler
from fireopd.plans.rows import Draft, RolloutContext
from fireopd.teachers.sampling import TeacherSampler
from fireopd.types import Prompt, Response, RolloutBatch

__all__ = ["Planning", "roll_out_batches", "roll_out_plan"]


@dataclass(frozen=True)
class Planning:
    """A plan with all that it takes to follow it."""

    plan: RolloutPlan = field(default_factory=FixedPlan)
    """The plan."""
    teachers: Mapping[str, TeacherSampler] = field(default_factory=dict)
    """Teachers that the plan lets sample, by name."""
    tokenizer: PreTrainedTokenizerBase | None = None
    """The student's tokenizer."""
    grade: Callable[[Sequence[Prompt], Sequence[Response]], list[float]] | None = None
    """Returns the rewards of drafts; None if the plan does not grade them."""
    trains_given: bool = False
    """True if the objective trains on given tokens."""
    reweighted: bool = True
    """True if importance weights correct for rows of the student at another temperature."""

    def snapshot(self) -> "Planning":
        """Return a copy with the present state of the plan, for a rollout during the next step."""
        return replace(self, plan=copy.deepcopy(self.plan))


def roll_out_plan(
    planning: Planning, engine: RolloutEngine, prompts: Sequence[Prompt], *, step: int, **settings: Any
) -> RolloutBatch:
    """Sample the rows that a plan asks for, of one batch with the index `step`; see `roll_out_batches`."""
    [batch] = roll_out_batches(planning, engine, {step: prompts}, **settings)
    return batch


def roll_out_batches(
    planning: Planning,
    engine: RolloutEngine,
    batches: Mapping[int, Sequence[Prompt]],
    *,
    responses: int,
    seed: int,
    vocabulary: int,
    first_group: int = 0,
    finished: Callable[[RolloutBatch], None] | None = None,
) -> list[RolloutBatch]:
    """Sample the rows that a plan asks for, of several batches at once: the engine gets all of their rows together.

    Every process must call with its own prompts, possibly none.

    Args:
        planning: the plan with its teachers.
        engine: samples the rows of the student.
        batches: prompts of each batch by its number. Number, run seed, prompt id and response index seed each row.
        responses: maximum number of responses to a prompt.
        seed: seed of the run.
        vocabulary: number of token ids of the student.
        first_group: group number of the first prompt of each batch.
        finished: called with each trajectory when it is complete, by engines that complete rows one by one; possibly
            from several threads.

    Raises:
        ContractError: if the rows of the plan, or the responses of an engine, are invalid.
    """
    start, rollout = time.perf_counter(), PlannedRollout(planning, engine, vocabulary)
    limits = (engine.policy_version, responses, engine.max_response_length, planning.tokenizer)
    prompts = [prompt for own in batches.values() for prompt in own]
    now = [context for n, own in batches.items() for context in [RolloutContext(seed, n, *limits)] * len(own)]
    rows = rollout.rows(prompts, now, rollout.drafts(prompts, now))

    def collated(rows: Sequence[PlannedRow], sampled: Sequence[Response], groups: Sequence[int]) -> RolloutBatch:
        """Return rows with their responses as a batch."""
        given, seconds = planning.trains_given, time.perf_counter() - start
        settings = (engine.sampling, engine.policy_version, seconds)
        return collate([row.prompt for row in rows], sampled, groups, *settings, trains_given=given)

    def announce(row: PlannedRow, response: Response) -> None:
        """Pass a complete trajectory on."""
        if finished is not None:
            finished(collated([row], [response], [0]))

    sampled = rollout.sample(rows, None if finished is None else announce)
    found, first = [], 0
    for number, own in batches.items():
        places = [n for n, row in enumerate(rows) if first <= row.place < first + len(own)]
        groups = [first_group + rows[n].place - first for n in places]
        batch = collated([rows[n] for n in places], [sampled[n] for n in places], groups)
        found.append(replace(batch, number=number))
        first += len(own)
    return found


@dataclass(frozen=True)
class PlannedRollout:
    """A rollout in progress: the plan, and the models that sample."""

    planning: Planning
    """The plan with its teachers."""
    engine: RolloutEngine
    """Samples the rows of the student."""
    vocabulary: int
    """Number of token ids of the student."""

    @property
    def limits(self) -> RowLimits:
        """Limits on the rows."""
        return RowLimits(self.vocabulary, self.engine.temperature, self.planning.reweighted)

    def drafts(self, prompts: Sequence[Prompt], contexts: Sequence[RolloutContext]) -> list[list[Draft]]:
        """Return the drafts of each prompt, with their rewards if the plan grades them."""
        plan, found = self.planning.plan, [list[Draft]() for _ in prompts]
        if not plan.has_drafts:
            return found
        rows = [
            PlannedRow(prompt, row, row_seed(now.seed, now.number, prompt.id, -1 - index), place)
            for place, (prompt, now) in enumerate(zip(prompts, contexts, strict=True))
            for index, row in enumerate(
                checked_rows(plan, plan.drafts(prompt, now), prompt, now, self.limits, drafts=True)
            )
        ]
        sampled, rewards = self.sample(rows), list[float | None]([None] * len(rows))
        if plan.grades_drafts and self.planning.grade is not None:
            rewards = list(self.planning.grade([row.prompt for row in rows], sampled))
        for row, response, reward in zip(rows, sampled, rewards, strict=True):
            found[row.place].append(Draft(response, reward))
        return found

    def rows(
        self, prompts: Sequence[Prompt], contexts: Sequence[RolloutContext], drafts: Sequence[Sequence[Draft]]
    ) -> list[PlannedRow]:
        """Return the rows of all prompts, each with its context."""
        plan = self.planning.plan
        return [
            PlannedRow(prompt, row, row_seed(now.seed, now.number, prompt.id, index), place)
            for place, (prompt, now, own) in enumerate(zip(prompts, contexts, drafts, strict=True))
            for index, row in enumerate(checked_rows(plan, plan.rows(prompt, now, own), prompt, now, self.limits))
        ]

    def sample(
        self, rows: Sequence[PlannedRow], announce: Callable[[PlannedRow, Response], None] | None = None
    ) -> list[Response]:
        """Return the response of each row, in order, its prefix included.

        Args:
            rows: rows to sample.
            announce: called with each row and its response when it is complete.
        """
        found = {place: row.row.prefix for place, row in enumerate(rows) if row.row.complete}
        for place, response in found.items():
            if announce is not None and response is not None:
                announce(rows[place], response)
        samplers: dict[str | None, RowSampler] = {None: RowSampler("data.engine", self.engine, self.vocabulary)}
        for name, teacher in sorted(self.planning.teachers.items()):
            samplers[name] = RowSampler(f"model.teachers.{name}", teacher.engine, self.vocabulary, teacher)
        for own, sampler in samplers.items():
            places = [place for place, row in enumerate(rows) if place not in found and row.row.sampler == own]
            # Processes may share the engine of the student: all of them call it.
            if places or (own is None and (collectives.world_size() > 1 or not rows)):
                found |= zip(places, sampler.sample([rows[place] for place in places], announce), strict=True)
        return [response for _, response in sorted(found.items()) if response is not None]

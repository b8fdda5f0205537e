"""Conformance checks of rollout plans: valid rows, independent prompts, reproducible choices, state."""

import copy
import random
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from fireopd.models.loading import load_tokenizer, vocabulary_size
from fireopd.plans import BatchSummary, Draft, RolloutContext, RolloutPlan, RowPlan
from fireopd.plans.contract import RowLimits, checked_rows
from fireopd.testing.checks import report
from fireopd.testing.plugin_checks import example_prompts, settings_violations, violations_of
from fireopd.types import Prompt, Response, Source
from fireopd.types.strategy_state import Stateful

__all__ = ["check_plan"]

LONGEST, RESPONSES = 16, 4
"""Maximum response length, tokens, and responses to a prompt of the test rollouts."""
VERSIONS = (0, 50, 100_000)
"""Policy versions of the test rollouts, far enough apart for schedules to change."""


@dataclass(eq=False)
class PlanCase:
    """A plan under test."""

    plan: RolloutPlan
    student: str
    max_length: int

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Example prompts with solutions."""
        return [replace(prompt, solution="12;#9") for prompt in example_prompts(self.student)]

    @cached_property
    def limits(self) -> RowLimits:
        """Limits on the rows."""
        return RowLimits(vocabulary_size(self.student, "student"), 1.0)

    def context(self, version: int = 0, number: int = 3) -> RolloutContext:
        """Return the state of a run."""
        tokenizer = load_tokenizer(self.student, "student")
        return RolloutContext(1, number, version, RESPONSES, self.max_length, tokenizer)

    def rows(self, plan: RolloutPlan, prompt: Prompt, now: RolloutContext) -> list[RowPlan]:
        """Return the checked rows of a prompt, after drafts of fixed tokens, of which the first is correct."""
        asked = checked_rows(plan, plan.drafts(prompt, now), prompt, now, self.limits, drafts=True)
        if asked and not plan.has_drafts:
            raise ValueError("drafts returns rows, and has_drafts is False: assign has_drafts = True")
        drafts = [
            Draft(_written(prompt, row), float(place == 0) if plan.grades_drafts else None)
            for place, row in enumerate(asked)
        ]
        return checked_rows(plan, plan.rows(prompt, now, drafts), prompt, now, self.limits)


def _written(prompt: Prompt, row: RowPlan) -> Response:
    """Return a response of the length of a row."""
    length = row.max_length - len(row.start)
    tokens = tuple(prompt.tokens[place % len(prompt.tokens)] for place in range(length))
    rest = Response(tokens, (-1.0,) * length, finished=False)
    rest = rest.by(Source.STUDENT if row.sampler is None else Source.TEACHER)
    return rest if row.prefix is None else row.prefix.followed_by(rest)


def check_plan(plan: RolloutPlan, student: str = "tiny/student", max_length: int = LONGEST) -> None:
    """Check the contract of a rollout plan.

    Args:
        plan: an instance, with any settings.
        student: model whose tokenizer the plan may use: a folder, hub name, or embedded model.
        max_length: maximum response length of the test rollouts, tokens.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    found = settings_violations(plan, RolloutPlan, frozen=True)
    case = PlanCase(plan, student, max_length)
    report(found + violations_of(type(plan).__name__, case, CHECKS), plan)


def accepts_its_settings(case: PlanCase) -> str:
    """Check that the plan accepts the test rollouts."""
    case.plan.check("data.plan", case.prompts, case.max_length)
    return ""


def returns_valid_rows(case: PlanCase) -> str:
    """Check the rows of all prompts, early and late in a run."""
    for version in VERSIONS:
        for prompt in case.prompts:
            case.rows(copy.deepcopy(case.plan), prompt, case.context(version))
    return ""


def declares_its_teachers(case: PlanCase) -> str:
    """Check that teachers and the author TEACHER are declared together."""
    writers = frozenset[str]().union(*map(case.plan.writers, case.prompts))
    if writers and Source.TEACHER not in case.plan.sources and not case.plan.has_drafts:
        return "names writers, and its sources lack TEACHER. Declare the authors of all tokens in 'sources'."
    return ""


def plans_each_prompt_alone(case: PlanCase) -> str:
    """Check that the rows of a prompt do not depend on the prompts before it, nor on global random numbers."""
    now, random_state, torch_state = case.context(), random.getstate(), torch.get_rng_state()
    plan = copy.deepcopy(case.plan)
    together = [case.rows(plan, prompt, now) for prompt in case.prompts]
    for prompt, rows in reversed(list(zip(case.prompts, together, strict=True))):
        if case.rows(copy.deepcopy(case.plan), prompt, now) != rows:
            return (
                f"returns other rows for the prompt {prompt.id} if it is planned alone. Draw from now.uniform(prompt, "
                "index), and change the state in observe only."
            )
    if random.getstate() != random_state or not torch.equal(torch.get_rng_state(), torch_state):
        return "draws from a global generator. Draw from now.uniform(prompt, index)."
    return ""


def observes_any_batch(case: PlanCase) -> str:
    """Check that the plan keeps its contract after ordinary and extreme batches."""
    plan = copy.deepcopy(case.plan)
    for summary in _summaries(case):
        plan.observe(summary)
        for prompt in case.prompts:
            case.rows(plan, prompt, case.context(summary.policy_version))
    return ""


def restores_its_state(case: PlanCase) -> str:
    """Check that a plan that changes by batches has a state, and continues from it."""
    plan, fresh = copy.deepcopy(case.plan), copy.deepcopy(case.plan)
    summaries, now, prompt = _summaries(case), case.context(), case.prompts[0]
    for summary in summaries:
        plan.observe(summary)
    changed = case.rows(plan, prompt, now) != case.rows(fresh, prompt, now)
    if not (isinstance(plan, Stateful) and isinstance(fresh, Stateful)):
        remedy = "Inherit from Remembers, and declare the state with remembered(...)"
        return f"changes by the batches that it observes, and has no state_dict. {remedy}." if changed else ""
    state: dict[str, Any] = copy.deepcopy(plan.state_dict())
    fresh.load_state_dict(state)
    for summary in summaries:
        plan.observe(summary)
        fresh.observe(summary)
        if case.rows(plan, prompt, now) != case.rows(fresh, prompt, now):
            return "continues with other rows after load_state_dict. Put all that changes into the state."
    return ""


def _summaries(case: PlanCase) -> list[BatchSummary]:
    """Return batches of random, shortest and longest responses, one of them without a kept trajectory."""
    longest, found = case.max_length, []
    drawn = torch.randint(1, longest + 1, (8,), generator=torch.Generator().manual_seed(0))
    yes = torch.ones(8, dtype=torch.bool)
    lengths = (drawn, torch.ones_like(drawn), torch.full_like(drawn, longest), drawn)
    for number, (length, kept) in enumerate(zip(lengths, (yes, yes, yes, ~yes), strict=True)):
        effective = torch.where(kept, (length + 1) // 2, 0)
        found.append(BatchSummary(number, kept, length < longest, length, effective, longest, yes.float()))
    return found


CHECKS = (
    accepts_its_settings,
    returns_valid_rows,
    declares_its_teachers,
    plans_each_prompt_alone,
    observes_any_batch,
    restores_its_state,
)

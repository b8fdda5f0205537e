"""Checks of the rollout plan of a run, before any weights are loaded."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fireopd.errors import UserError
from fireopd.models.loading import context_length, vocabulary_size
from fireopd.objectives.sources import check_sources
from fireopd.plans import Draft, FixedPlan, RolloutContext, RowPlan
from fireopd.plans.contract import RowLimits, checked_rows
from fireopd.teachers import HFTeacher
from fireopd.training.run_plan import RunPlan
from fireopd.types import Prompt, Response, Source

__all__ = ["check_planned_rows", "check_writers", "plan_checks"]

KEY = "data.plan"


def plan_checks(plan: RunPlan) -> Iterator[Callable[[], None]]:
    """Yield the checks of the plan: each raises `UserError` for its problem."""
    data, own = plan.data, plan.data.rollout_plan
    name = type(own).__name__
    if data.recorded is not None:
        if own != FixedPlan():
            problem = "the rollouts are recorded, so nothing is planned"
            yield partial(_refuse, UserError(KEY, name, problem, "leave it out, or leave out data.rollouts"))
        return
    yield partial(check_sources, plan.method.objective, own.sources, f"{KEY} {name}")
    yield partial(check_writers, plan)
    if own.grades_drafts and data.overlap:
        problem = f"{name} grades responses during the rollout, and verifiers may need the main thread"
        yield partial(_refuse, UserError("data.overlap", data.overlap, problem, "set data.overlap 0"))
    yield partial(check_planned_rows, plan)


def check_writers(plan: RunPlan) -> None:
    """Raise `UserError` if a teacher that the plan lets sample is unknown, or cannot sample."""
    data, written = plan.data, dict[str, list[Prompt]]()
    for prompt in data.training_prompts:
        for name in data.rollout_plan.writers(prompt):
            written.setdefault(name, []).append(prompt)
    for name, prompts in sorted(written.items()):
        key, teacher = f"model.teachers.{name}", plan.teachers.get(name)
        if teacher is None:
            if name in {prompt.teacher for prompt in data.training_prompts}:
                continue  # the routing of the prompts is checked
            problem = f"no such teacher; the teachers are {', '.join(sorted(plan.teachers)) or 'none'}"
            raise UserError(f"{KEY}.teacher", name, problem, f"name one of them, or add {key}")
        teacher.check_sampling(key)
        if plan.processes.sharded or plan.sharding.offload_teachers:
            problem = f"{type(data.rollout_plan).__name__} lets {name} sample, and its weights are sharded or offloaded"
            raise UserError(KEY, name, problem, "train without sharding and offloading, or use another data.plan")
        if plan.shares_weights(teacher):
            problem = "it is the student below its adapter, and has no model of its own to sample from"
            raise UserError(key, name, problem, "give it another dtype, or use another data.plan")
        others = [prompt for prompt in prompts if prompt.teacher != name]
        teacher.check(key, plan.student, others, data.engine.max_response_length)


def check_planned_rows(plan: RunPlan) -> None:
    """Check the settings of the plan; plan the rows of the longest prompt of each teacher, and check these.

    Raises:
        UserError: if a setting does not fit the run, a row is invalid, or a row does not fit into the context of the
            teacher that samples it.
    """
    plan.data.rollout_plan.check(KEY, plan.data.training_prompts, plan.data.engine.max_response_length)
    if plan.data.problems:
        return  # prompts may be missing or untokenized
    data, own = plan.data, copy.deepcopy(plan.data.rollout_plan)
    settings = (data.responses_per_prompt, data.engine.max_response_length, data.tokenizer)
    now = RolloutContext(0, 0, 0, *settings)
    vocabulary = vocabulary_size(plan.student, "model.student")
    limits = RowLimits(vocabulary, data.engine.temperature, plan.method.importance_cap is not None)
    longest = dict[str, Prompt]()
    for prompt in sorted(data.training_prompts, key=lambda prompt: len(prompt.tokens)):
        longest[prompt.teacher] = prompt
    for prompt in longest.values():
        asked = checked_rows(own, own.drafts(prompt, now), prompt, now, limits, drafts=True) if own.has_drafts else []
        drafts = [Draft(_example(prompt, row), 1.0 if own.grades_drafts else None) for row in asked]
        rows = checked_rows(own, own.rows(prompt, now, drafts), prompt, now, limits)
        _check_contexts(plan, prompt, [*asked, *rows])


def _example(prompt: Prompt, row: RowPlan) -> Response:
    """Return a response of the length of a row, with tokens of the prompt."""
    length = row.max_length - len(row.start)
    tokens = (prompt.tokens * (length // len(prompt.tokens) + 1))[:length]
    rest = Response(tokens, (0.0,) * length, finished=False)
    rest = rest.by(Source.STUDENT if row.sampler is None else Source.TEACHER)
    return rest if row.prefix is None else row.prefix.followed_by(rest)


def _check_contexts(plan: RunPlan, prompt: Prompt, rows: Sequence[RowPlan]) -> None:
    for row in rows:
        teacher = plan.teachers.get(row.sampler or "")
        if row.prompt is None or not isinstance(teacher, HFTeacher):
            continue
        need, limit = len(row.prompt) + row.max_length, context_length(teacher.path, f"model.teachers.{row.sampler}")
        if limit is not None and need > limit:
            problem = f"{row.sampler} reads up to {need} tokens for the prompt {prompt.id}, and its context has {limit}"
            remedy = "lower data.engine.max_response_length, or shorten the context of the plan"
            raise UserError(KEY, type(plan.data.rollout_plan).__name__, problem, remedy)


def _refuse(error: UserError) -> None:
    raise error

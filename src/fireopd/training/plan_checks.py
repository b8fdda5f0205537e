"""Checks of the rollout plan of a run, before any weights are loaded."""

from collections.abc import Callable, Iterator
from functools import partial

from fireopd.errors import UserError
from fireopd.models.loading import context_length
from fireopd.objectives.sources import check_sources
from fireopd.plans import FixedPlan
from fireopd.teachers import HFTeacher
from fireopd.training.planned_rows import planned_rows, prompts_of_writers
from fireopd.training.run_plan import RunPlan

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
    data = plan.data
    for name, prompts in prompts_of_writers(plan).items():
        key, teacher = f"model.teachers.{name}", plan.teachers.get(name)
        if teacher is None:
            if name in {prompt.teacher for prompt in data.training_prompts}:
                continue  # the routing of the prompts is checked
            problem = f"no such teacher; the teachers are {', '.join(sorted(plan.teachers)) or 'none'}"
            raise UserError(f"{KEY}.teacher", name, problem, f"name one of them, or add {key}")
        teacher.check_sampling(key, plan.student)
        if teacher.samples_here and (plan.processes.sharded or plan.sharding.offload_teachers):
            problem = f"{type(data.rollout_plan).__name__} lets {name} sample, and its weights are sharded or offloaded"
            remedy = f"set {key}.sampling_servers, train without sharding and offloading, or use another data.plan"
            raise UserError(KEY, name, problem, remedy)
        if teacher.samples_here and plan.shares_weights(teacher):
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
    data = plan.data
    data.rollout_plan.check(KEY, data.training_prompts, data.engine.max_response_length)
    if data.problems:
        return  # prompts may be missing or untokenized
    for prompt, row in planned_rows(plan):
        teacher = plan.teachers.get(row.sampler or "")
        if row.prompt is None or not isinstance(teacher, HFTeacher):
            continue
        need, limit = len(row.prompt) + row.max_length, context_length(teacher.path, f"model.teachers.{row.sampler}")
        if limit is not None and need > limit:
            problem = f"{row.sampler} reads up to {need} tokens for the prompt {prompt.id}, and its context has {limit}"
            remedy = "lower data.engine.max_response_length, or shorten the context of the plan"
            raise UserError(KEY, type(data.rollout_plan).__name__, problem, remedy)


def _refuse(error: UserError) -> None:
    raise error

"""Rows that a rollout plan asks for, planned before a run, and the key-value caches of teachers that sample."""

import copy
from collections.abc import Iterator

from fireopd.engines import HFEngine
from fireopd.models.loading import load_config, vocabulary_size
from fireopd.plans import Draft, RolloutContext, RowPlan
from fireopd.plans.contract import RowLimits, checked_rows
from fireopd.teachers import HFTeacher
from fireopd.training.memory_estimate import Part, cache_per_token
from fireopd.training.run_plan import RunPlan
from fireopd.types import Prompt, Response, Source

__all__ = ["planned_rows", "prompts_of_writers", "rows_of_process", "with_writers"]


def prompts_of_writers(plan: RunPlan) -> dict[str, list[Prompt]]:
    """Return the prompts of each teacher that may sample, by its name, in alphabetical order."""
    found = dict[str, list[Prompt]]()
    for prompt in plan.data.training_prompts:
        for name in plan.data.rollout_plan.writers(prompt):
            found.setdefault(name, []).append(prompt)
    return dict(sorted(found.items()))


def planned_rows(plan: RunPlan) -> Iterator[tuple[Prompt, RowPlan]]:
    """Yield each row of the longest prompt of each teacher, drafts included, at the first step.

    Raises:
        ContractError: if a row is invalid.
    """
    data, own = plan.data, copy.deepcopy(plan.data.rollout_plan)
    now = RolloutContext(0, 0, 0, data.responses_per_prompt, data.engine.max_response_length, data.tokenizer)
    vocabulary = vocabulary_size(plan.student, "model.student")
    limits = RowLimits(vocabulary, data.engine.temperature, plan.method.importance_cap is not None)
    longest = {prompt.teacher: prompt for prompt in sorted(data.training_prompts, key=lambda own: len(own.tokens))}
    for prompt in longest.values():
        asked = checked_rows(own, own.drafts(prompt, now), prompt, now, limits, drafts=True) if own.has_drafts else []
        drafts = [Draft(_example(prompt, row), 1.0 if own.grades_drafts else None) for row in asked]
        for row in (*asked, *checked_rows(own, own.rows(prompt, now, drafts), prompt, now, limits)):
            yield prompt, row


def _example(prompt: Prompt, row: RowPlan) -> Response:
    """Return a response of the length of a row, with tokens of the prompt."""
    length = row.max_length - len(row.start)
    tokens = (prompt.tokens * (length // len(prompt.tokens) + 1))[:length]
    rest = Response(tokens, (0.0,) * length, finished=False)
    rest = rest.by(Source.STUDENT if row.sampler is None else Source.TEACHER)
    return rest if row.prefix is None else row.prefix.followed_by(rest)


def rows_of_process(plan: RunPlan) -> int:
    """Return the largest number of rows that a process samples in one rollout."""
    data = plan.data
    return -(-data.batch_size // plan.processes.world_size) * data.group_size * max(1, data.overlap)


def with_writers(plan: RunPlan, engine: list[Part]) -> list[Part]:
    """Return the parts of the engine in a rollout, with the largest key-value cache of the teachers that sample.

    One model samples at a time, and `HFEngine` releases its cache after it: the larger one counts.
    """
    caches, own = _writer_caches(plan), {part.name: part for part in engine}
    if caches and isinstance(plan.data.engine, HFEngine):
        caches.insert(0, own.pop("rollouts: KV cache"))
    return [*own.values(), max(caches, key=lambda part: part.size)] if caches else engine


def _writer_caches(plan: RunPlan) -> list[Part]:
    """Return the key-value cache of each teacher in this process that samples."""
    data, found = plan.data, list[Part]()
    if data.recorded is not None or data.problems:
        return found
    slots = data.engine.batch_size if isinstance(data.engine, HFEngine) else HFEngine.batch_size
    for name, prompts in prompts_of_writers(plan).items():
        teacher = plan.teachers.get(name)
        if not (isinstance(teacher, HFTeacher) and teacher.samples_here):
            continue
        read = [len(teacher.prompt_tokens(prompt)) + data.engine.max_response_length for prompt in prompts]
        own = [row for _, row in planned_rows(plan) if row.sampler == name and row.prompt is not None]
        read += [len(row.prompt or ()) + row.max_length for row in own]
        numbers = cache_per_token(load_config(teacher.path, f"model.teachers.{name}"))
        like = HFEngine(batch_size=slots, dtype=teacher.dtype)
        size, formula = like.memory(0, numbers, rows_of_process(plan), max(read))["KV cache"]
        found.append(Part(f"rollouts: KV cache of {name}", size, formula))
    return found

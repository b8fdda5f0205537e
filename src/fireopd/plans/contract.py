"""Contract of rollout plans: checks of the rows of a prompt, before they are sampled."""

import math
from dataclasses import dataclass

from fireopd.plans.base import RolloutPlan
from fireopd.plans.rows import RolloutContext, RowPlan
from fireopd.types import Prompt, Source
from fireopd.types.strategy import ContractError

__all__ = ["RowLimits", "checked_rows"]


@dataclass(frozen=True)
class RowLimits:
    """Limits on the rows of a run."""

    vocabulary: int
    """Number of token ids of the student."""
    temperature: float
    """Temperature of the engine."""
    reweighted: bool = True
    """True if importance weights correct for another temperature of the student."""


def checked_rows(
    plan: RolloutPlan, rows: object, prompt: Prompt, now: RolloutContext, limits: RowLimits, *, drafts: bool = False
) -> list[RowPlan]:
    """Return the rows of a prompt, or the rows of its drafts.

    Raises:
        ContractError: unless they are 1 to `now.responses` (0 for drafts) rows within the limits, by declared authors.
    """
    if not isinstance(rows, list | tuple):
        raise _error(plan, prompt, f"returned a {type(rows).__name__}", "return a list of RowPlan")
    if not (0 if drafts else 1) <= len(rows) <= now.responses:
        remedy = f"return {0 if drafts else 1} to {now.responses} rows, or raise data.responses_per_prompt"
        raise _error(plan, prompt, f"returned {len(rows)} rows", remedy)
    for row in rows:
        problem, remedy = _problem(plan, row, prompt, now, limits)
        if not problem and not drafts:
            problem, remedy = _author_problem(plan, row)
        if problem:
            raise _error(plan, prompt, f"returned {problem}", remedy)
    return list(rows)


def _problem(plan: RolloutPlan, row: object, prompt: Prompt, now: RolloutContext, limits: RowLimits) -> tuple[str, str]:
    """Return problem and remedy of a row; the problem is empty if it has none."""
    if not isinstance(row, RowPlan):
        return f"a {type(row).__name__}", "return RowPlan(max_length, ...)"
    if not (isinstance(row.max_length, int) and 1 <= row.max_length <= now.max_length):
        remedy = f"plan 1 to {now.max_length} tokens, or raise data.engine.max_response_length"
        return f"a response of at most {row.max_length} tokens", remedy
    if len(row.start) > row.max_length:
        return f"a prefix of {len(row.start)} tokens for a response of at most {row.max_length}", "cut the prefix"
    wrong = [token for token in (*row.start, *(row.prompt or ())) if not 0 <= token < limits.vocabulary]
    if wrong:
        return f"the token id {wrong[0]}", f"return ids from 0 to {limits.vocabulary - 1}, those of the vocabulary"
    if row.sampler is not None and row.sampler not in plan.writers(prompt):
        return f"the sampler {row.sampler!r}", "declare it in 'writers', and name a key of model.teachers"
    return _temperature_problem(row, limits)


def _author_problem(plan: RolloutPlan, row: RowPlan) -> tuple[str, str]:
    authors = {*(() if row.prefix is None else row.prefix.authors)}
    if not row.complete:
        authors.add(Source.STUDENT if row.sampler is None else Source.TEACHER)
    undeclared = sorted(authors - plan.sources)
    return (
        (f"tokens of the author {undeclared[0].name}", "declare all authors in 'sources'") if undeclared else ("", "")
    )


def _temperature_problem(row: RowPlan, limits: RowLimits) -> tuple[str, str]:
    temperature = row.temperature
    if temperature is None:
        return "", ""  # that of the engine, which is checked as data.engine.temperature
    if not (math.isfinite(temperature) and temperature > 0):
        problem = f"the temperature {temperature:g}, at which log-probabilities are undefined"
        return problem, "train at 1; 0 is for evaluation"
    if row.sampler is None and temperature != limits.temperature and not limits.reweighted:
        problem = f"the temperature {temperature:g} for the student, and no importance weights correct for it"
        return problem, "set model.importance_cap, for example 5.0, or data.engine.temperature"
    return "", ""


def _error(plan: RolloutPlan, prompt: Prompt, problem: str, remedy: str) -> ContractError:
    return ContractError.of(plan.setting, plan, "check_plan", f"{problem} for the prompt {prompt.id}", remedy)

"""Checks of a run before any weights are loaded: student, teachers, prompts, engine and strategies fit together."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from lightning.pytorch.utilities import rank_zero_info

from fireopd.engines import RolloutEngine
from fireopd.errors import UserError, collect_errors, distinct, raise_together
from fireopd.method import Method
from fireopd.models.architecture import check_architecture
from fireopd.models.compiled_layers import check_compile
from fireopd.models.kernels import check_kernels
from fireopd.models.loading import check_weights
from fireopd.models.quantization import check_quantization
from fireopd.teachers import EMAStudentTeacher, HFTeacher, Teacher
from fireopd.training.attention_checks import attention_checks
from fireopd.training.background_rollout import largest_staleness
from fireopd.training.master_weights import check_master_weights
from fireopd.training.optimizer_checks import check_optimizer
from fireopd.training.plan_checks import plan_checks
from fireopd.training.recorded_checks import recorded_checks
from fireopd.training.run_plan import DataPlan, RunPlan
from fireopd.training.run_warnings import run_warnings
from fireopd.training.trainer_checks import check_sharding, trainer_checks
from fireopd.types import Prompt, Sampling
from fireopd.types.signals import SIGNALS
from fireopd.verifiers import ExactMatch, FinalAnswer, MathVerify
from fireopd.verifiers.grading import rows_by_source

__all__ = [
    "check_answers",
    "check_averages",
    "check_base",
    "check_groups",
    "check_overlap",
    "check_routing",
    "check_run",
    "check_sampling",
    "check_signals",
    "check_staleness",
    "check_student",
    "check_verifiers",
    "checks",
    "problems",
]

OF_ANSWERS = (ExactMatch, FinalAnswer, MathVerify)
"""Verifiers that compare responses with `Prompt.answer`."""


def check_run(plan: RunPlan) -> None:
    """Check a run and log its warnings.

    Raises:
        UserError: with all problems and their remedies.
    """
    raise_together(problems(plan))
    for text in run_warnings(plan):
        rank_zero_info(f"Warning: {text}")


def problems(plan: RunPlan) -> list[UserError]:
    """Return all problems of a run, in the order of the checks, problems with equal messages once."""
    found = list[UserError]()
    for check in checks(plan):
        with collect_errors(found):
            check()
    return distinct(found)


def checks(plan: RunPlan) -> Iterator[Callable[[], None]]:
    """Yield the checks of a run: each raises `UserError` for its problem and loads no weights."""
    data, method = plan.data, plan.method
    yield from trainer_checks(plan.processes)
    yield partial(check_sharding, plan.sharding, plan.processes)
    yield partial(raise_together, data.problems)
    yield partial(check_student, plan)
    yield partial(check_architecture, plan.student, "model.student")
    yield partial(check_weights, plan.student, "model.student")
    if plan.adapter is not None:
        yield partial(plan.adapter.check, plan.student)
    yield partial(check_optimizer, plan)
    yield from _kernel_checks(plan)
    if data.recorded is not None:
        yield from recorded_checks(plan)
    else:
        yield partial(check_routing, plan.teachers, data.prompts)
        yield partial(check_sampling, data.engine.sampling, method.importance_cap)
        yield partial(check_overlap, data.overlap, data.engine, method.importance_cap)
        yield partial(check_staleness, data, plan.budgets.updates)
    yield from plan_checks(plan)
    yield partial(check_signals, plan.signals)
    for name, teacher in plan.teachers.items():
        key, own = f"model.teachers.{name}", [prompt for prompt in data.training_prompts if prompt.teacher == name]
        yield partial(teacher.check, key, plan.student, own, data.engine.max_response_length)
        if "teacher_entropy" in plan.signals:
            yield partial(teacher.check_entropy, key, plan.student)
        if plan.distributions:
            yield partial(teacher.check_distributions, key, plan.student)
    yield partial(check_averages, plan)
    yield partial(check_base, plan)
    if data.samples:
        yield partial(data.engine.check, "data.engine", plan.student)
    prompts = data.graded_prompts
    for source, rows in rows_by_source(prompts).items():
        verifier = data.verifiers.get(source)
        if verifier is not None:
            yield partial(verifier.check, _verifier_key(source), [prompts[row] for row in rows])
    yield partial(check_verifiers, data, graded="rewards" in plan.signals or data.rollout_plan.grades_drafts)
    yield partial(check_answers, method, data)
    yield partial(check_groups, method, data.group_size)
    yield partial(check_master_weights, plan)


def _kernel_checks(plan: RunPlan) -> Iterator[Callable[[], None]]:
    frozen = dict(chain.from_iterable(own.models(f"model.teachers.{name}") for name, own in plan.teachers.items()))
    frozen |= {} if plan.base is None else {"model.base": plan.base}
    yield partial(check_kernels, "model.kernels", plan.budgets.kernels, plan.processes.device, plan.student)
    for key, model in frozen.items():
        if isinstance(model, HFTeacher):
            yield partial(check_weights, model.path, f"{key}.path")
            yield partial(check_kernels, f"{key}.kernels", model.kernels, plan.processes.device, model.path)
            if model.kernels == "liger" != plan.budgets.kernels and plan.shares_weights(model):
                yield partial(_refuse_shared_layers, f"{key}.kernels")
    whole = not plan.processes.sharded and not plan.sharding.offload_teachers
    for key, model in frozen.items():
        if isinstance(model, HFTeacher) and model.quantization is not None:
            settings = (model.path, model.quantization, model.dtype, plan.processes.device)
            yield partial(check_quantization, key, *settings, whole=whole)
    yield from attention_checks(plan)
    if plan.budgets.compiled:
        yield partial(check_compile, "model.compile", plan.student, plan.processes.device, plan.budgets.kernels)


def _refuse_shared_layers(key: str) -> None:
    problem = "this model has the layers of the student"
    raise UserError(key, "liger", problem, "set it to triton, or model.kernels to liger")


def check_student(plan: RunPlan) -> None:
    """Raise `UserError` if the prompts were tokenized for another model than the student."""
    if plan.data.student != plan.student:
        problem = f"the prompts are tokenized for it, and the student is {plan.student!r}"
        raise UserError("data.student", plan.data.student, problem, "give data module and module the same student")


def check_routing(teachers: Mapping[str, Teacher], prompts: Sequence[Prompt]) -> None:
    """Raise `UserError` if a prompt names an unknown teacher."""
    unknown = [prompt for prompt in prompts if prompt.teacher not in teachers]
    if unknown:
        name, others = unknown[0].teacher, len(unknown) - 1
        count = f" (and {others} other prompts name unknown teachers)" if others else ""
        known = ", ".join(sorted(teachers)) or "none"
        problem = f"unknown teacher of the prompt {unknown[0].id}{count}; the teachers are {known}"
        raise UserError("model.teachers", name, problem, f"add model.teachers.{name}, or fix the prompt")


def check_sampling(sampling: Sampling, importance_cap: float | None) -> None:
    """Raise `UserError` if the log-probabilities of sampled tokens are undefined or do not allow importance weights."""
    if not math.isfinite(sampling.temperature):
        problem = "the logits cannot be divided by it"
        raise UserError("data.engine.temperature", sampling.temperature, problem, "give a finite number, such as 1")
    if sampling.greedy:
        problem = "greedy responses are not drawn from a distribution, so their log-probabilities are undefined"
        raise UserError("data.engine.temperature", sampling.temperature, problem, "train at 1; 0 is for evaluation")
    if importance_cap is not None and sampling.truncated:
        key, value = ("top_p", sampling.top_p) if sampling.top_p < 1 else ("top_k", sampling.top_k)
        problem = "the engine draws from a part of the vocabulary, so importance weights to the student are undefined"
        remedy = "sample with top_p 1 and top_k 0, or switch importance weights off: model.importance_cap null"
        raise UserError(f"data.engine.{key}", value, problem, remedy)


def check_overlap(overlap: int, engine: RolloutEngine, importance_cap: float | None) -> None:
    """Raise `UserError` if rollouts cannot overlap with training, or if no importance weights correct for it."""
    if not overlap:
        return
    refusal = engine.refusal_of_overlap()
    if refusal is not None:
        raise UserError(refusal.key, overlap, refusal.problem, refusal.remedy)
    if importance_cap is None:
        problem = "rollouts come from an older student, and no importance weights correct for it"
        raise UserError("data.overlap", overlap, problem, "set model.importance_cap, for example 5.0")


def check_staleness(data: DataPlan, updates: int) -> None:
    """Raise `UserError` if overlap makes batches older than allowed; a batch gets `updates` optimizer steps."""
    expected = largest_staleness(data.overlap, updates)
    if data.max_staleness is None or expected <= data.max_staleness:
        return
    problem = f"with data.overlap {data.overlap} and {updates} optimizer steps per batch, some are {expected} steps old"
    raise UserError("data.max_staleness", data.max_staleness, problem, "lower data.overlap, or raise it")


def check_signals(signals: frozenset[str]) -> None:
    """Raise `UserError` if a signal is unknown."""
    for name in sorted(signals):
        if name not in SIGNALS:
            raise UserError("model.extra_signals", name, "no such signal", f"choose from {', '.join(SIGNALS)}")


def check_averages(plan: RunPlan) -> None:
    """Raise `UserError` if a moving average of the student would be held in half precision."""
    for key, teacher in plan.frozen_models.items():
        if isinstance(teacher, EMAStudentTeacher) and plan.adapter is None and plan.dtype != "float32":
            problem = f"small updates of an average of {plan.dtype} parameters round to nothing"
            raise UserError(f"{key}.decay", teacher.decay, problem, "set model.dtype float32, or train an adapter")


def check_base(plan: RunPlan) -> None:
    """Raise `UserError` if the base model's log-probabilities are required and no suitable base model is set."""
    recorded = plan.data.recorded is not None and "base_logprobs" in plan.data.recorded.signals
    if "base_logprobs" not in plan.signals or recorded:
        return
    if plan.base is None:
        readers = [type(part).__name__ for part in plan.method.strategies.values() if "base_logprobs" in part.requires]
        problem = f"{' and '.join(readers) or 'model.extra_signals'} reads base_logprobs, which need a base model"
        remedy = f"set one, for example --model.base HFTeacher --model.base.path {plan.student}"
        raise UserError("model.base", None, problem, remedy)
    plan.base.check("model.base", plan.student, plan.data.training_prompts, plan.data.engine.max_response_length)


def check_verifiers(data: DataPlan, *, graded: bool) -> None:
    """Raise `UserError` if responses are graded and the source of their prompts has no verifier.

    Args:
        data: prompts and verifiers.
        graded: whether responses to training prompts are graded, besides those of validation.
    """
    for prompt in data.graded_prompts if graded else data.validation_prompts:
        if prompt.source not in data.verifiers:
            problem = f"the responses to {prompt.id} are graded, and the source of this prompt has no verifier"
            raise UserError(_verifier_key(prompt.source), None, problem, "set one, for example ExactMatch")


def check_answers(method: Method, data: DataPlan) -> None:
    """Raise `UserError` if a strategy requires rewards, and all are 0 since no training prompt has an answer."""
    readers = [type(part).__name__ for part in method.strategies.values() if "rewards" in part.requires]
    prompts = () if data.recorded is not None else data.training_prompts
    without = [isinstance(data.verifiers.get(p.source), OF_ANSWERS) and not p.answer for p in prompts]
    if readers and without and all(without):
        problem = f"no training prompt has an answer, so all rewards that {' and '.join(readers)} reads are 0"
        remedy = "give the prompts answers, for example with data.prompts.columns.answer, or use no rewards"
        raise UserError("data.prompts", data.training_prompts[0].id, problem, remedy)


def check_groups(method: Method, responses_per_prompt: int) -> None:
    """Raise `UserError` if a strategy gets no signal from single responses."""
    for part in method.strategies.values():
        if part.needs_groups and responses_per_prompt == 1:
            problem = f"{type(part).__name__} compares the responses to one prompt"
            raise UserError("data.responses_per_prompt", 1, problem, "set at least 2, for example 4")


def _verifier_key(source: str) -> str:
    return f"data.prompts.sources.{source}.verifier" if source else "data.prompts.verifier"

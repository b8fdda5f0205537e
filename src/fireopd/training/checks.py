"""What is checked before anything is loaded: that student, teachers, prompts and strategies fit together."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from fireopd.errors import UserError
from fireopd.teachers import Teacher
from fireopd.training.data import RolloutDataModule
from fireopd.types import Sampling
from fireopd.types.signals import SIGNALS
from fireopd.verifiers.grading import rows_of_each_verifier

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule


def check_run(module: "FiReOPDModule", data: RolloutDataModule) -> None:
    """Check a run, and have the data module grade training rollouts if a strategy reads rewards.

    Raises:
        UserError: that says what does not fit, and how to mend it.
    """
    for check in checks(module, data):
        check()
    data.grade_training = "rewards" in module.requires


def problems(module: "FiReOPDModule", data: RolloutDataModule) -> list[UserError]:
    """Return all that does not fit, instead of the first."""
    found = []
    for check in checks(module, data):
        try:
            check()
        except UserError as problem:
            found.append(problem)
    return found


def checks(module: "FiReOPDModule", data: RolloutDataModule) -> Iterator[Callable[[], None]]:
    """Yield the checks of a run: each raises `UserError`, and loads no weights."""
    yield partial(check_precision, str(module.trainer.precision))
    yield partial(check_routing, module.teachers, data)
    yield partial(check_sampling, data.engine.sampling, module.method.importance_cap)
    yield partial(check_overlap, data, module.method.importance_cap)
    yield partial(check_signals, module.requires)
    for name, teacher in module.teachers.items():
        prompts = [p for p in (*data.training_prompts, *data.validation_prompts) if p.teacher == name]
        yield partial(teacher.check, f"model.teachers.{name}", data.student, prompts, data.engine.max_response_length)
        if module.compares:
            yield partial(teacher.check_distributions, f"model.teachers.{name}", data.student)
    yield partial(check_base, module, data)
    yield partial(data.engine.check, "data.engine", data.student)
    prompts = [*data.training_prompts, *data.validation_prompts]
    for verifier, rows in rows_of_each_verifier(prompts):
        source = prompts[rows[0]].source
        key = f"data.prompts.sources.{source}.verifier" if source else "data.prompts.verifier"
        yield partial(verifier.check, key, [prompts[row] for row in rows])


def check_precision(precision: str) -> None:
    """Raise `UserError` if gradients would have to be scaled."""
    if precision == "16-mixed":
        remedy = "use bf16-mixed, or 32-true with model.dtype"
        raise UserError("trainer.precision", "16-mixed", "gradients are clipped without a loss scale", remedy)


def check_routing(teachers: Mapping[str, Teacher], data: RolloutDataModule) -> None:
    """Raise `UserError` if a prompt names a teacher that there is not."""
    astray = [p for p in (*data.training_prompts, *data.validation_prompts) if p.teacher not in teachers]
    if astray:
        name, others = astray[0].teacher, len(astray) - 1
        asked = f"asked for by the prompt {astray[0].id}{f' (and {others} others go astray)' if others else ''}"
        problem = f"{asked}, but the teachers are {', '.join(sorted(teachers)) or 'none'}"
        raise UserError("model.teachers", name, problem, f"add model.teachers.{name}, or mend the prompt")


def check_sampling(sampling: Sampling, importance_cap: float | None) -> None:
    """Raise `UserError` if the log-probs of what is sampled mean nothing, or importance weights are wanted of them."""
    if sampling.greedy:
        problem = "greedy responses are not drawn from a distribution, so their log-probabilities mean nothing"
        raise UserError("data.engine.temperature", sampling.temperature, problem, "train at 1; 0 is for evaluating")
    if importance_cap is not None and sampling.truncated:
        key, value = ("top_p", sampling.top_p) if sampling.top_p < 1 else ("top_k", sampling.top_k)
        problem = "the engine draws from a part of the vocabulary, so importance weights to the student mean nothing"
        remedy = "sample with top_p 1 and top_k 0, or do without importance weights: model.importance_cap null"
        raise UserError(f"data.engine.{key}", value, problem, remedy)


def check_overlap(data: RolloutDataModule, importance_cap: float | None) -> None:
    """Raise `UserError` if rollouts cannot overlap with training, or if nothing makes up for it."""
    if not data.overlap:
        return
    refusal = data.engine.refusal_of_overlap()
    if refusal is not None:
        raise refusal
    if importance_cap is None:
        problem = "rollouts come from an older student, and no importance weights make up for it"
        raise UserError("data.overlap", True, problem, "set model.importance_cap, for example 5.0")


def check_signals(requires: frozenset[str]) -> None:
    """Raise `UserError` if a signal is wanted that a run cannot compute."""
    for name in sorted(requires):
        if name not in SIGNALS:
            raise UserError("model.extra_signals", name, "no such signal", f"the signals are {', '.join(SIGNALS)}")


def check_base(module: "FiReOPDModule", data: RolloutDataModule) -> None:
    """Raise `UserError` if a strategy reads the base model's log-probabilities and there is none, or not a fit one."""
    if "base_logprobs" not in module.requires:
        return
    if module.base is None:
        readers = [
            type(part).__name__ for part in module.method.strategies.values() if "base_logprobs" in part.requires
        ]
        problem = f"{' and '.join(readers) or 'model.extra_signals'} reads base_logprobs, which take a base model"
        remedy = f"give one, for example --model.base HFTeacher --model.base.path {data.student}"
        raise UserError("model.base", None, problem, remedy)
    module.base.check("model.base", data.student, data.training_prompts, data.engine.max_response_length)

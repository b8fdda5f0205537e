"""Checks of a run on recorded rollouts: the files hold what its strategies need. No model is loaded."""

from collections.abc import Callable, Iterator
from functools import partial

from fireopd.errors import UserError
from fireopd.objectives import Objective
from fireopd.objectives.sources import check_batch_sources
from fireopd.training.recorded_rollouts import KEY, Recording
from fireopd.training.recordings import how_to_record
from fireopd.training.run_plan import RunPlan
from fireopd.types.signals import JOINT, OF_STUDENT

__all__ = ["recorded_checks"]


def recorded_checks(plan: RunPlan) -> Iterator[Callable[[], None]]:
    """Yield the checks of a run on recorded rollouts: each raises `UserError` for its problem."""
    recording = plan.data.recorded
    assert recording is not None
    yield partial(_check_teachers, plan)
    yield partial(_check_overlap, plan)
    yield partial(_check_distributions, plan)
    yield partial(_check_signals, plan, recording)
    yield partial(_check_importance, plan, recording)
    for file in recording.files:
        yield partial(check_batch_sources, plan.method.objective, file.batch, str(file.path))


def _check_teachers(plan: RunPlan) -> None:
    if plan.teachers:
        name, teacher = next(iter(plan.teachers.items()))
        problem = "the recorded rollouts hold the scores of their teachers, so no teacher is loaded"
        raise UserError(f"model.teachers.{name}", type(teacher).__name__, problem, "set model.teachers {}")


def _check_overlap(plan: RunPlan) -> None:
    if plan.data.overlap:
        raise UserError("data.overlap", plan.data.overlap, "recorded rollouts are not sampled", "set it to 0")


def _check_distributions(plan: RunPlan) -> None:
    """Refuse strategies that compare the distributions of the student with those of teachers."""
    remedy = "choose another, or train with the teacher"
    for name, part in plan.method.strategies.items():
        joint = sorted(part.requires & JOINT)
        direct = isinstance(part, Objective) and part.direct
        if direct or joint:
            reads = "its divergence" if direct else joint[0]
            problem = f"{reads} needs the teacher's distributions, which recordings do not hold"
            raise UserError(f"model.{name}", type(part).__name__, problem, remedy)
    extra = sorted(plan.signals & JOINT)
    if extra:
        problem = "it needs the teacher's distributions, which recordings do not hold"
        raise UserError("model.extra_signals", extra[0], problem, "remove it")


def _check_signals(plan: RunPlan, recording: Recording) -> None:
    """Refuse strategies that read a signal which a file lacks."""
    held = recording.signals | OF_STUDENT | JOINT
    held |= {"base_logprobs"} if plan.base is not None else set()
    readers = {f"model.{name}": (type(part).__name__, part.requires) for name, part in plan.method.strategies.items()}
    readers["model.extra_signals"] = ("", plan.signals - {"sampling_logprobs"})  # which every run computes
    for key, (reader, signals) in readers.items():
        for signal in sorted(signals - held):
            path = next(file.path for file in recording.files if signal not in file.batch.signals)
            problem = f"it reads {signal}, which {path} does not hold" if reader else f"{path} does not hold it"
            remedy = _remedy(signal)
            raise UserError(key, reader or signal, problem, remedy)


def _remedy(signal: str) -> str:
    if signal.startswith("teacher"):
        return f"{how_to_record(signal)}, or add it with fireopd score"
    return how_to_record(signal)


def _check_importance(plan: RunPlan, recording: Recording) -> None:
    """Refuse importance weights where the sampler's distribution is not known or excludes tokens."""
    path, sampling, cap = str(recording.files[0].path), recording.sampling, plan.method.importance_cap
    if sampling.greedy:
        problem = "its greedy responses are not drawn from a distribution"
        raise UserError(KEY, path, problem, "record rollouts at temperature 1")
    if cap is None:
        return
    if "sampling_logprobs" not in recording.signals:
        without = next(file.path for file in recording.files if "sampling_logprobs" not in file.batch.signals)
        problem = f"importance weights need the log-probabilities of the sampler, which {without} does not hold"
        raise UserError("model.importance_cap", cap, problem, "set it to null")
    if sampling.truncated:
        problem = f"the recorded responses were sampled from a truncated distribution ({sampling})"
        raise UserError("model.importance_cap", cap, problem, "set it to null")

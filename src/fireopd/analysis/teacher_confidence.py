"""Confidence in the teachers: each answers a sample of its prompts, and so does the student, before training.

A teacher that is worse than the student on the prompts routed to it makes the student worse, without a sign in the
losses. Both answer the same prompts with the same random numbers, so the difference has a paired interval over prompts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch

from fireopd.analysis.bootstrap import BootstrapEstimate, bootstrap
from fireopd.engines import HFEngine
from fireopd.engines.rollout import collate, roll_out
from fireopd.models.loading import Dtype, vocabulary_size
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.progress import track
from fireopd.teachers import HFTeacher, Teacher
from fireopd.training.run_plan import RunPlan
from fireopd.types import Prompt, Response, Sampling
from fireopd.verifiers.grading import grade

__all__ = ["Measured", "TeacherConfidence", "confidence_lines", "sample_teachers"]


@dataclass(frozen=True)
class Measured:
    """Values of one model by prompt."""

    rewards: dict[str, float]
    """Mean reward of the responses to each graded prompt."""
    solutions: dict[str, float]
    """Mean log-probability per token of each reference solution, nats."""


@dataclass(frozen=True)
class TeacherConfidence:
    """One teacher and the student on the same prompts."""

    name: str
    """Name of the teacher, with that of its part in a mixture."""
    teacher: Measured
    """Values of the teacher."""
    student: Measured
    """Values of the student."""

    def line(self) -> str:
        """Return one line on the teacher."""
        parts = []
        if self.teacher.rewards:
            parts.append(f"accuracy {self._compared('rewards', '.3f')} prompts")
        if self.teacher.solutions:
            parts.append(f"reference solutions {self._compared('solutions', '.2f')} solutions, nats per token")
        return f"teacher {self.name}: {'; '.join(parts) or 'its prompts have neither answers nor solutions'}"

    def warnings(self) -> list[str]:
        """Return a sentence for each quantity in which the teacher is worse, with an interval that excludes 0."""
        found = []
        for kind, shown in (("rewards", "answers"), ("solutions", "reference solutions")):
            difference = self._difference(kind)
            interval = None if difference is None else difference.interval
            if interval is not None and interval[1] < 0:
                problem = f"the teacher {self.name} is worse than the student on its own prompts, by their {shown}"
                remedy = "route these prompts to another teacher, or leave them out"
                found.append(f"{problem} ({self._compared(kind, '.3f')}): {remedy}")
        return found

    def _difference(self, kind: str) -> BootstrapEstimate | None:
        own, other = getattr(self.teacher, kind), getattr(self.student, kind)
        common = [name for name in own if name in other]
        return bootstrap([own[name] - other[name] for name in common], [1.0] * len(common)) if common else None

    def _compared(self, kind: str, digits: str) -> str:
        own, other, difference = getattr(self.teacher, kind), getattr(self.student, kind), self._difference(kind)
        assert difference is not None
        interval = difference.interval
        shown = "" if interval is None else f" [{interval[0]:{digits}}, {interval[1]:{digits}}]"
        means = f"{fmean(own.values()):{digits}}, of the student {fmean(other.values()):{digits}}"
        return f"{means}, difference {difference.value:{digits}}{shown} on {difference.units}"


@dataclass(frozen=True)
class _Model:
    """A model that answers prompts."""

    path: str
    dtype: Dtype
    teacher: Teacher | None
    """Teacher whose context the prompts get; None for the student."""

    def measure(self, plan: RunPlan, prompts: Sequence[Prompt], responses: int) -> Measured:
        """Return rewards and log-probabilities of solutions on prompts."""
        seen = [p if self.teacher is None else replace(p, tokens=self.teacher.prompt_tokens(p)) for p in prompts]
        own = plan.data.engine.sampling
        engine = HFEngine(plan.data.engine.max_response_length, own.temperature, own.top_p, own.top_k, dtype=self.dtype)
        engine.expect_prompts(max(len(prompt.tokens) for prompt in seen))
        engine.setup(self.path, plan.processes.device)
        try:
            graded = [p for p in seen if p.source in plan.data.verifiers and (p.answer or p.details)]
            rewards = self._rewards(plan, engine, graded, responses) if graded else {}
            return Measured(rewards, self._solutions(plan, engine, [p for p in seen if p.solution]))
        finally:
            engine.close()

    def _rewards(self, plan: RunPlan, engine: HFEngine, prompts: Sequence[Prompt], responses: int) -> dict[str, float]:
        vocabulary = vocabulary_size(self.path, "model.teachers")
        _, rows, sampled = roll_out(engine, prompts, responses=responses, seed=0, step=0, vocabulary=vocabulary)
        tokenizer: Any = plan.data.tokenizer
        texts = [str(tokenizer.decode(list(r.tokens), skip_special_tokens=True)) for r in sampled]
        found: dict[str, list[float]] = {}
        for prompt, own in zip(rows, grade(rows, texts, plan.data.verifiers), strict=True):
            found.setdefault(prompt.id, []).append(own.reward)
        return {name: fmean(values) for name, values in found.items()}

    def _solutions(self, plan: RunPlan, engine: HFEngine, prompts: Sequence[Prompt]) -> dict[str, float]:
        if not prompts:
            return {}
        tokenizer: Any = plan.data.tokenizer
        texts: Any = [tokenizer(prompt.solution, add_special_tokens=False)["input_ids"] for prompt in prompts]
        written = [(*tokens, tokenizer.eos_token_id) for tokens in texts]
        responses = [Response(tokens, (0.0,) * len(tokens), finished=True) for tokens in written]
        rollouts = collate(prompts, responses, range(len(prompts)), Sampling(), policy_version=0)
        assert engine.model is not None
        scorer = CausalScorer(engine.model)
        scores = score_rollouts(
            scorer, rollouts.to(plan.processes.device), entropy=False, token_budget=plan.budgets.token_budget
        )
        means = scores.logprobs.cpu().sum(-1) / rollouts.response_mask.sum(-1)
        return dict(zip((prompt.id for prompt in prompts), means.tolist(), strict=True))


def sample_teachers(plan: RunPlan, number: int, responses: int = 1) -> tuple[list[TeacherConfidence], list[str]]:
    """Return the teachers' confidence on samples of their training prompts, and the teachers that cannot be sampled.

    Args:
        plan: description of the run, whose checks have passed.
        number: prompts of each teacher, at most.
        responses: responses to each prompt.
    """
    students: dict[str, Measured] = {}
    found, others = list[TeacherConfidence](), list[str]()
    for name, teacher in track(list(plan.teachers.items()), "sampling teachers"):
        own = [prompt for prompt in plan.data.training_prompts if prompt.teacher == name]
        prompts = random.Random(0).sample(own, min(number, len(own)))
        models = {place: _model(plan, model) for place, model in teacher.models(name)}
        others += [place for place, model in models.items() if model is None]
        for place, model in models.items() if prompts else ():
            if model is not None:
                if name not in students:
                    students[name] = _Model(plan.student, plan.dtype, None).measure(plan, prompts, responses)
                found.append(TeacherConfidence(place, model.measure(plan, prompts, responses), students[name]))
    torch.cuda.empty_cache()
    return found, others


def confidence_lines(plan: RunPlan, number: int) -> list[str]:
    """Return the lines of `fireopd check --sample_teachers`, warnings included."""
    found, others = sample_teachers(plan, number)
    lines = [confidence.line() for confidence in found]
    lines += [f"teacher {name}: not sampled, since its weights are not in this process" for name in others]
    return [*lines, *(f"warning: {text}" for confidence in found for text in confidence.warnings())]


def _model(plan: RunPlan, teacher: Teacher) -> _Model | None:
    """Return the model of a teacher; None for a teacher in another process."""
    if isinstance(teacher, HFTeacher):
        return _Model(teacher.path, teacher.dtype, teacher)
    if teacher.reads_student(plan.student, plan.dtype, adapter=plan.adapter is not None):
        return _Model(plan.student, plan.dtype, teacher)
    return None

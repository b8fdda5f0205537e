"""Plans that do not fit a run are refused before it: one sentence each; plans resume in mid-schedule."""

import re
from dataclasses import dataclass

import pytest
import torch
from helpers.training import TEACHERS, Notes, make_data, make_module, make_trainer

from fireopd.engines import HFEngine
from fireopd.objectives import GeneralizedJSD, ReverseKL
from fireopd.plans import (
    AdaptiveLength,
    FixedPlan,
    Refine,
    RolloutPlan,
    RowPlan,
    ShortRollouts,
    TeacherMix,
    TeacherPrefix,
    VerifiedTeacherMix,
)
from fireopd.teachers import HFTeacher, StudentTeacher
from fireopd.training.memory_phases import memory_phases
from fireopd.training.run_checks import problems
from fireopd.training.run_warnings import run_warnings

LONG = HFEngine(max_response_length=16)
REWRITE = [{"role": "user", "content": "{details.draft};{question}"}]


@dataclass(frozen=True)
class Cold(RolloutPlan):
    """Plan with a temperature of its own."""

    temperature: float = 0.0

    def rows(self, prompt, now, drafts):
        return [RowPlan(now.max_length, temperature=self.temperature)]


def found(plan, tmp_path, data=None, **settings):
    """Return the problems of a run with a plan."""
    module = make_module(**({"objective": GeneralizedJSD()} | settings))
    data = make_data(**({"engine": LONG, "plan": plan} | (data or {})))
    trainer = make_trainer(tmp_path)
    module.trainer = data.trainer = trainer
    return [str(error) for error in problems(module.run_plan(data))]


@pytest.mark.parametrize(
    ("plan", "settings", "message"),
    [
        (ShortRollouts(17), {}, r"data.plan.length: 17: data.engine.max_response_length is 16. Lower it, or raise"),
        (AdaptiveLength(shortest=17), {}, r"data.plan.shortest: 17: data.engine.max_response_length is 16"),
        (TeacherMix(0.5, teacher="law"), {}, r"data.plan.teacher: 'law': no such teacher; .* code, math. Name one"),
        (Cold(), {}, r"data.plan: 'Cold': returned the temperature 0, at which log-probabilities are undefined"),
        (
            Cold(0.5),
            {"importance_cap": None},
            r"data.plan: 'Cold': .*temperature 0.5 for the student, and no importance weights",
        ),
        (TeacherPrefix(16), {}, r"data.plan.length: 16: the prefix is not shorter than the response, 16 tokens"),
        (
            TeacherMix(0.5),
            {"teachers": TEACHERS | {"math": StudentTeacher()}},
            r"model.teachers.math: 'StudentTeacher': it only scores tokens, .* Use an HFTeacher",
        ),
        (
            TeacherMix(0.5),
            {"objective": ReverseKL()},
            r"model.objective: 'ReverseKL': its gradient is wrong at tokens that a teacher writes, which data.plan",
        ),
        (Refine([{"role": "user", "content": "{details.draft};{question}" * 20}]), {}, r"its context has 256"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_in_one_sentence(plan, settings, message, tmp_path):
    (only,) = found(plan, tmp_path, **settings)
    assert re.search(message, only), only


def test_the_memory_of_a_rollout_has_the_cache_of_a_teacher_that_samples(tmp_path):
    """That of the student if both read equal prompts, a larger one for prompts with a draft."""

    def caches(plan, **data):
        module, made = make_module(objective=GeneralizedJSD()), make_data(engine=LONG, plan=plan, **data)
        module.trainer = made.trainer = make_trainer(tmp_path)
        phases = {phase.name: phase.parts for phase in memory_phases(module.run_plan(made), 2**30)}
        return [{p.name: p.size for p in phases[name] if "KV cache" in p.name} for name in ("rollout", "update")]

    student, mixed, rewritten = caches(FixedPlan()), caches(TeacherMix(1.0)), caches(Refine(REWRITE))
    assert mixed == student
    [(name, size)] = rewritten[0].items()
    assert name.startswith("rollouts: KV cache of ")
    assert size > student[0]["rollouts: KV cache"]
    assert rewritten[1] == student[1], "released after the rollout"
    overlapped = caches(Refine(REWRITE), overlap=1)
    assert overlapped[1] == overlapped[0]


def test_text_that_the_tokenizer_does_not_know_is_a_warning(tmp_path):
    def warned(plan):
        module, data = make_module(objective=GeneralizedJSD()), make_data(engine=LONG, plan=plan)
        module.trainer = data.trainer = make_trainer(tmp_path)
        return [text for text in run_warnings(module.run_plan(data)) if "data.plan" in text]

    assert warned(Refine(REWRITE)) == []
    [only] = warned(Refine([{"role": "user", "content": "DRAFT {details.draft};{question}"}]))
    assert only == "the tokenizer does not know all text of the messages that data.plan Refine writes"


def test_graded_drafts_need_the_main_thread_and_recordings_no_plan(tmp_path):
    (only,) = found(VerifiedTeacherMix(), tmp_path, data={"overlap": 1})
    assert "data.overlap: 1: VerifiedTeacherMix grades responses during the rollout" in only
    assert found(VerifiedTeacherMix(), tmp_path) == []
    assert found(FixedPlan(), tmp_path, objective=ReverseKL()) == []


def test_a_run_resumes_in_the_middle_of_its_plan(tmp_path):
    """Weights and metrics of the last step are those of an uninterrupted run, bit by bit."""

    plan = AdaptiveLength(decay=0.2, shortest=2)

    def run(steps, checkpoint=None):
        module = make_module(
            objective=GeneralizedJSD(), teachers={name: HFTeacher(f"tiny/{name}") for name in TEACHERS}
        )
        data = make_data(6, engine=HFEngine(max_response_length=6), batch_size=2, plan=plan)
        notes = Notes()
        trainer = make_trainer(tmp_path, max_steps=steps, max_epochs=2, callbacks=[notes])
        trainer.fit(module, data, ckpt_path=checkpoint)
        return notes, data.planning.plan, trainer

    whole, planned, _ = run(3)
    run(2)[2].save_checkpoint(tmp_path / "two.ckpt")
    rest, again, _ = run(3, str(tmp_path / "two.ckpt"))
    assert len(rest.weights) == 1
    assert all(torch.equal(one, other) for one, other in zip(whole.weights[-1], rest.weights[-1], strict=True))
    same = {name for name in rest.metrics[-1] if not name.startswith("time/")} - {"train/tokens_per_s"}
    assert {name: whole.metrics[-1][name] for name in same} == {name: rest.metrics[-1][name] for name in same}
    assert getattr(again, "state", None) == getattr(planned, "state", None)

"""Rollout plans: rows, authors of tokens, seeds, and the equality of one process and two."""

from dataclasses import dataclass, replace

import pytest
import torch
from helpers.training import make_data

from fireopd.cli.entry_points import load_plugins
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.plans import (
    AdaptiveLength,
    BatchSummary,
    Draft,
    FixedPlan,
    Refine,
    RolloutContext,
    RolloutPlan,
    RowPlan,
    ShortRollouts,
    SolutionPrefix,
    TeacherMix,
    TeacherPrefix,
    VerifiedTeacherMix,
)
from fireopd.plans.rollout import Planning, roll_out_plan
from fireopd.teachers import HFTeacher
from fireopd.testing import check_plan
from fireopd.types import Response, Source
from fireopd.types.strategy import ContractError

LONGEST, CPU = 12, torch.device("cpu")
REWRITE = [{"role": "user", "content": "{details.draft};{question}"}]


@pytest.fixture(scope="module")
def setting():
    """Return an engine of the student, samplers of two teachers, prompts and a tokenizer."""
    data = make_data(12, engine=HFEngine(max_response_length=LONGEST))
    data.setup("fit")
    data.engine.setup("tiny/student", CPU)
    teachers = {name: HFTeacher(f"tiny/{name}") for name in ("math", "code")}
    for name, teacher in teachers.items():
        teacher.setup(name, CPU)
    samplers = {name: teacher.sampler(data.engine, 48) for name, teacher in teachers.items()}
    return data, samplers


def rolled(setting, plan, prompts=None, step=3, version=0, responses=2, **settings):
    data, samplers = setting
    data.engine.policy_version = version
    planning = Planning(plan, samplers, data.tokenizer, **settings)
    prompts = data.training_prompts[:5] if prompts is None else prompts
    return roll_out_plan(planning, data.engine, prompts, responses=responses, seed=1, step=step, vocabulary=48)


def rows(batch):
    """Return tokens and authors of each response."""
    sources = torch.where(batch.response_mask, Source.STUDENT, 0) if batch.sources is None else batch.sources
    return [
        (row[mask].tolist(), own[mask].tolist())
        for row, own, mask in zip(batch.tokens, sources, batch.written, strict=True)
    ]


PLANS = [
    FixedPlan(),
    ShortRollouts(5),
    TeacherPrefix(4),
    SolutionPrefix(0.5),
    TeacherMix(0.5),
    VerifiedTeacherMix(0.7),
    Refine(REWRITE),
]


def graded(prompts, responses):
    """Return 1 for every second response by a hash of its prompt."""
    return [float(sum(prompt.tokens) % 2) for prompt in prompts]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: type(plan).__name__)
def test_the_rows_of_a_prompt_do_not_depend_on_the_other_prompts(setting, plan):
    """So one process and two make the same rollouts."""
    prompts = setting[0].training_prompts[:4]
    together = rows(rolled(setting, plan, prompts, grade=graded))
    apart = [rows(rolled(setting, plan, part, grade=graded)) for part in (prompts[0::2], prompts[1::2])]
    pairs = [[part[2 * place : 2 * place + 2] for place in range(2)] for part in apart]
    assert together == [row for both in zip(*pairs, strict=True) for pair in both for row in pair]


def test_short_rollouts_are_the_first_tokens_of_full_ones(setting):
    full, short = rows(rolled(setting, FixedPlan())), rows(rolled(setting, ShortRollouts(5)))
    assert [(tokens[:5], own[:5]) for tokens, own in full] == short
    annealed = ShortRollouts({"from": 4, "to": 8, "steps": 10})
    lengths = [rolled(setting, annealed, version=step).response_mask.sum(-1).max().item() for step in (0, 5, 10, 99)]
    assert lengths == [4, 6, 8, 8]


def test_a_mix_at_0_is_the_plain_rollout_and_at_1_that_of_the_teachers(setting):
    plain, none, every = (rolled(setting, plan) for plan in (FixedPlan(), TeacherMix(0.0), TeacherMix(1.0)))
    assert none.sources is None
    for name in ("tokens", "response_mask", "sampling_logprobs", "finished", "groups"):
        assert torch.equal(getattr(none, name), getattr(plain, name)), name
    assert torch.equal(every.tokens_by(Source.TEACHER), every.response_mask)
    half = rolled(setting, TeacherMix(0.5))
    by_teacher = half.tokens_by(Source.TEACHER).any(-1)
    assert 0 < by_teacher.sum() < len(by_teacher)
    for place, (mixed, one, other) in enumerate(zip(rows(half), rows(plain), rows(every), strict=True)):
        assert mixed == (other if by_teacher[place] else one)


def test_log_probabilities_are_those_of_the_author(setting):
    batch = rolled(setting, TeacherPrefix(4))
    teacher = HFTeacher("tiny/math")
    teacher.setup("math", CPU)
    student = replace(teacher, path="tiny/student")
    student.setup("student", CPU)
    of_teacher, of_student = (own.score(batch, entropy=False).logprobs for own in (teacher, student))
    math = torch.tensor([name == "math" for name in batch.teachers])[:, None]
    by_teacher, by_student = batch.tokens_by(Source.TEACHER) & math, batch.tokens_by(Source.STUDENT)
    assert by_teacher.sum() > 4
    torch.testing.assert_close(batch.sampling_logprobs[by_teacher], of_teacher[by_teacher], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch.sampling_logprobs[by_student], of_student[by_student], atol=1e-4, rtol=1e-4)


def test_given_tokens_are_context_unless_the_objective_trains_on_them(setting):
    data, _ = setting
    context, trained = (rolled(setting, SolutionPrefix(0.5), trains_given=given) for given in (False, True))
    given = context.tokens_by(Source.GIVEN)
    assert given.any(-1).all()
    assert not (given & context.response_mask).any()
    assert torch.equal(trained.response_mask, context.response_mask | given)
    assert torch.equal(context.tokens, trained.tokens)
    for row, prompt in enumerate(context.prompts):
        text = data.tokenizer.decode(context.tokens[row][given[row]].tolist())
        assert prompt.solution.startswith(text.replace(" ", "")) or prompt.solution.startswith(text)


def test_only_correct_responses_of_the_teacher_are_taken(setting):
    batch, plain = rolled(setting, VerifiedTeacherMix(1.0), grade=graded), rolled(setting, FixedPlan())
    correct = torch.tensor(graded(batch.prompts, [])) > 0.5
    assert 0 < correct.sum() < len(correct)
    assert torch.equal(batch.tokens_by(Source.TEACHER).any(-1), correct)
    for mixed, own, taken in zip(rows(batch), rows(plain), correct, strict=True):
        assert taken or mixed == own


def test_the_teacher_reads_the_draft_that_it_rewrites(setting):
    batch, drafts = rolled(setting, Refine(REWRITE)), []
    sampler = setting[1]["math"]

    def noting(asked):
        drafts.extend(request.prompt.tokens for request in asked)
        return HFEngine.sample(sampler.engine, asked)

    sampler.engine.sample = noting
    try:
        assert rows(rolled(setting, Refine(REWRITE))) == rows(batch)
    finally:
        del sampler.engine.sample
    assert drafts
    assert torch.equal(batch.tokens_by(Source.TEACHER), batch.response_mask)
    for prompt, row in zip(batch.prompts, batch.tokens, strict=True):
        assert tuple(row[: len(prompt.tokens)].tolist()) == prompt.tokens, "trained after the original prompt"
    texts = [setting[0].tokenizer.decode(tokens) for tokens in drafts]
    assert len(set(texts)) > len(texts) // 2, "each has its own draft"


def test_a_draft_may_be_empty_and_a_part_of_the_prompt_may_not(setting):
    """A student may end its response at once."""
    plan, prompt = Refine(REWRITE), setting[0].training_prompts[0]
    now = RolloutContext(1, 0, 0, 1, LONGEST, setting[0].tokenizer)
    empty = Draft(Response((setting[0].tokenizer.eos_token_id,), (-1.0,), finished=True))
    [row] = plan.rows(prompt, now, [empty])
    assert setting[0].tokenizer.decode(row.prompt).count(";") == 1 + prompt.content[-1]["content"].count(";")
    wanting = Refine([{"role": "user", "content": "{details.draft}{solution}"}])
    wanting.check("data.plan", [prompt], LONGEST)
    with pytest.raises(UserError, match=r"data.plan.context: .* the prompt has no solution"):
        wanting.check("data.plan", [replace(prompt, solution=None)], LONGEST)


def summary(lengths, kept=None, longest=LONGEST):
    own = torch.tensor(lengths)
    keep = torch.ones(len(own), dtype=torch.bool) if kept is None else torch.tensor(kept)
    return BatchSummary(0, keep, keep, own, own, longest)


def test_the_adaptive_length_follows_the_quantile_of_effective_lengths(setting):
    plan = AdaptiveLength(quantile=0.9, margin=1.25, decay=0.7, shortest=6)
    now = RolloutContext(1, 0, 0, 2, LONGEST)
    prompt = setting[0].training_prompts[0]

    def limit():
        return {row.max_length for row in plan.rows(prompt, now, [])}

    assert limit() == {LONGEST}
    plan.observe(summary([4, 8], kept=[False, False]))
    assert limit() == {LONGEST}
    expected = float(LONGEST)
    for lengths in ([2, 4, 6, 8], [2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]):
        ordered, place = sorted(lengths), 0.9 * (len(lengths) - 1)
        quantile = ordered[int(place)] + (place - int(place)) * (ordered[min(int(place) + 1, 3)] - ordered[int(place)])
        expected = max(0.7 * expected + 0.3 * 1.25 * quantile, 6)
        plan.observe(summary(lengths))
        assert limit() == {min(max(int(-(-expected // 1)), 6), LONGEST)}
    assert limit() == {6}
    again = AdaptiveLength(quantile=0.9, margin=1.25, decay=0.7, shortest=6)
    again.load_state_dict(plan.state_dict())
    again.observe(summary([40, 40]))
    plan.observe(summary([40, 40]))
    assert again.state == plan.state
    assert {row.max_length for row in again.rows(prompt, now, [])} == limit() != {6}


@dataclass(frozen=True)
class Answers(RolloutPlan):
    """Plan with given rows."""

    answer: object = ()

    sources = frozenset({Source.STUDENT, Source.GIVEN})

    def rows(self, prompt, now, drafts):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("abc", "returned a str"),
        ([], "returned 0 rows"),
        ([RowPlan(5)] * 3, "returned 3 rows"),
        ([5], "returned a int"),
        ([RowPlan(LONGEST + 1)], f"at most {LONGEST + 1} tokens .* raise data.engine.max_response_length"),
        ([RowPlan(0)], "at most 0 tokens"),
        ([RowPlan(2, prefix=Response.given([5, 6, 7]))], "a prefix of 3 tokens for a response of at most 2"),
        ([RowPlan(5, prefix=Response.given([48]))], "the token id 48"),
        ([RowPlan(5, prefix=Response((5,), (-1.0,), False, (Source.TEACHER,)))], "tokens of the author TEACHER"),
        ([RowPlan(5, sampler="math")], "the sampler 'math'"),
        ([RowPlan(5, temperature=0.0)], "the temperature 0, at which"),
        ([RowPlan(5, temperature=float("nan"))], "the temperature nan"),
        ([RowPlan(5, temperature=0.5)], "the temperature 0.5 for the student, and no importance weights"),
    ],
)
def test_invalid_rows_are_refused(setting, answer, message):
    with pytest.raises(ContractError, match=f"data.plan: 'Answers': .*{message}"):
        rolled(setting, Answers(answer), reweighted=False)


def test_rows_with_their_own_length_and_temperature(setting):
    prompt = setting[0].training_prompts[:1]
    mixed = rows(rolled(setting, Answers([RowPlan(4, temperature=2.0), RowPlan(7)]), prompt))
    hot, plain = (rows(rolled(setting, Answers([RowPlan(7, temperature=t)] * 2), prompt)) for t in (2.0, None))
    assert mixed == [(hot[0][0][:4], hot[0][1][:4]), plain[1]]
    assert hot != plain


def test_a_teacher_with_too_small_a_context_is_named(setting):
    data, samplers = setting
    small = {name: replace(sampler, limit=30) for name, sampler in samplers.items()}
    with pytest.raises(UserError, match=r"model.teachers.(math|code): \d+: the teacher reads .* its context has 30"):
        rolled((data, small), TeacherMix(1.0))


@pytest.mark.parametrize("plan", [p.strategy for p in load_plugins() if p.group == "fireopd.plans"])
def test_every_built_in_plan_keeps_its_contract(plan):
    settings = {"ShortRollouts": {"length": {"from": 3, "to": 9, "steps": 80}}, "AdaptiveLength": {"shortest": 2}}
    settings |= {"TeacherPrefix": {"length": 5}, "Refine": {"context": REWRITE}}
    check_plan(plan(**settings.get(plan.__name__, {})))

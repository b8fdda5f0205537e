"""Mixtures of teachers: equal to a naive mean in float64, to the single teacher with weights 0 and 1, and refusals."""

import copy

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.models import make_model, teachers_of, wide_model

from fireopd.errors import UserError
from fireopd.models.distributions import DistributionComparison, joint_signals
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.teachers import HFTeacher, MixtureTeacher, Teacher, deduplicate
from fireopd.teachers.huggingface import MISSING_TOKEN_LOGPROB
from fireopd.types import Prompt, Sampling, TokenScores

CPU = torch.device("cpu")
WEIGHTS = {"a": 1.0, "b": 3.0}
TASKS = {"code": {"b": 2.0, "c": 2.0}}
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32 logits of magnitude 10, and sums over 40 tokens


@pytest.fixture(scope="module")
def models():
    return {"a": make_model("tied"), "b": wide_model(), "c": make_model("untied", vocab_size=44)}


@pytest.fixture(scope="module")
def rollouts():
    batch = rollouts_of(scored_batch(5, 9, teachers=["math", "code"] * 3))
    return type(batch)(**{**{f: getattr(batch, f) for f in batch.__slots__}, "sampling": Sampling(0.7)})


def mixture(models, **settings):
    made = MixtureTeacher({name: HFTeacher(name) for name in models}, **settings)
    made.teachers = teachers_of(models, 7)
    return made


def reference(models, rollouts, mean, weights):
    """Return log-probabilities and entropies [B, L], each row computed alone in float64 with whole distributions."""
    logprobs, entropies = (torch.zeros(rollouts.tokens.shape, dtype=torch.float64) for _ in range(2))
    for row, task in enumerate(rollouts.tasks):
        given = weights(task)
        total = sum(given.values())
        parts = []
        for name in given:
            logits = copy.deepcopy(models[name]).double()(rollouts.tokens[row : row + 1]).logits[0, :-1]
            parts.append((given[name] / total, (logits / rollouts.sampling.temperature).log_softmax(-1)))
        size = (max if mean == "arithmetic" else min)(part.shape[-1] for _, part in parts)
        mixed = torch.zeros(len(parts[0][1]), size, dtype=torch.float64)
        for weight, part in parts:
            if mean == "arithmetic":
                mixed[:, : part.shape[-1]] += weight * part.exp()
            else:
                mixed += weight * part[:, :size]
        mixed = mixed.log() if mean == "arithmetic" else mixed.log_softmax(-1)
        own = rollouts.response_mask[row, 1:]
        logprobs[row, 1:][own] = mixed.gather(-1, rollouts.tokens[row, 1:, None]).squeeze(-1)[own]
        entropies[row, 1:][own] = torch.special.entr(mixed.exp()).sum(-1)[own]
    return logprobs, entropies


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_a_mixture_is_the_naive_mean(models, rollouts, mean):
    teacher = mixture(models, weights=WEIGHTS | {"c": 0.0}, task_weights=TASKS, mean=mean, chunk_logits=100)
    expected = reference(models, rollouts, mean, lambda task: TASKS.get(task, WEIGHTS))
    for scores in (teacher.score(rollouts, entropy=True), teacher.score_with_distributions(rollouts, entropy=True)[0]):
        for found, wanted in zip((scores.logprobs, scores.entropy), expected, strict=True):
            torch.testing.assert_close(found.double(), wanted, **CLOSE)
    alone = teacher.score(rollouts, entropy=False)
    assert alone.entropy is None
    torch.testing.assert_close(alone.logprobs.double(), expected[0], **CLOSE)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_students_are_compared_with_the_mixture(models, rollouts, mean):
    teacher = mixture(models, weights=WEIGHTS | {"c": 0.0}, task_weights=TASKS, mean=mean)
    _, known = teacher.score_with_distributions(rollouts, entropy=False)
    assert len(set(known.heads)) == 2  # one head for each task
    student = make_model("untied")
    comparison = DistributionComparison(known, joint_signals(frozenset({"reverse_kl"}), 4))
    found = score_rollouts(
        CausalScorer(student, 80), rollouts, entropy=False, token_budget=1000, comparison=comparison
    ).comparisons["reverse_kl"]
    for row in range(len(rollouts.tasks)):
        mask = rollouts.response_mask[row]
        logits = student(rollouts.tokens[row : row + 1]).logits[0, :-1][mask[1:]]
        own = (logits / rollouts.sampling.temperature).log_softmax(-1)
        other = known.heads[row].log_distribution(known.hidden_states[row], rollouts.sampling.temperature)
        other = other[:, :40].log_softmax(-1)
        torch.testing.assert_close(found[row, mask], (own.exp() * (own - other)).sum(-1), **CLOSE)


def test_weights_of_0_and_1_give_the_single_teacher_bitwise(models, rollouts):
    single = teachers_of(models, 7)["b"]
    for settings in ({"mean": "arithmetic"}, {"mean": "geometric"}):
        teacher = mixture(models, weights={"a": 0.0, "b": 5.0, "c": 0.0}, **settings)
        own, known = teacher.score_with_distributions(rollouts, entropy=True)
        other, expected = single.score_with_distributions(rollouts, entropy=True)
        for scores in (own, teacher.score(rollouts, entropy=True)):
            assert torch.equal(scores.logprobs, other.logprobs)
            assert torch.equal(scores.entropy, other.entropy)
        assert all(map(torch.equal, known.hidden_states, expected.hidden_states))
        assert torch.equal(known.heads[0].weight, expected.heads[0].weight)


class OnlyScores(Teacher):
    """Teacher without distributions, as one behind a server."""

    def __init__(self, logprob):
        self.logprob, self.rows = logprob, 0

    def check(self, key, student, prompts, response_length):
        self.checked = [prompt.id for prompt in prompts]

    def setup(self, key, device, shard):
        self.key = key

    def score(self, rollouts, *, entropy):
        assert not entropy
        self.rows += len(rollouts.tasks)
        return TokenScores(torch.where(rollouts.response_mask, self.logprob, 0.0))


def test_teachers_without_distributions_mix_arithmetically_and_are_refused_otherwise(rollouts):
    parts = {"a": OnlyScores(-1.0), "b": OnlyScores(-3.0)}
    teacher = MixtureTeacher(parts, weights=WEIGHTS, task_weights={"code": {"b": 1.0}})
    prompts = [Prompt((5,), "mix", task, None, task) for task in ("math", "code")]
    teacher.check("model.teachers.mix", "tiny/student", prompts, 4)
    assert [part.checked for part in parts.values()] == [["math"], ["math", "code"]]
    teacher.setup("model.teachers.mix", CPU)
    assert parts["b"].key == "model.teachers.mix.teachers.b"
    mixed = (0.25 * torch.tensor(-1.0).exp() + 0.75 * torch.tensor(-3.0).exp()).log()
    by_task = torch.tensor([mixed if task == "math" else -3.0 for task in rollouts.tasks])
    expected = torch.where(rollouts.response_mask, by_task[:, None], 0.0)
    torch.testing.assert_close(teacher.score(rollouts, entropy=False).logprobs, expected)
    assert parts["a"].rows == rollouts.tasks.count("math")
    with pytest.raises(UserError, match=r"mix.teachers.a: 'OnlyScores': the entropy of a mixture needs distributions"):
        teacher.check_entropy("model.teachers.mix", "tiny/student")
    with pytest.raises(UserError, match="'OnlyScores': it only scores sampled tokens"):
        teacher.check_distributions("model.teachers.mix", "tiny/student")
    with pytest.raises(UserError, match="'OnlyScores': a geometric mean needs distributions"):
        MixtureTeacher(parts, mean="geometric").check("model.teachers.mix", "tiny/student", [], 4)


def test_a_token_beyond_all_vocabularies_of_a_geometric_mean_is_missing(models, rollouts):
    wide = mixture({name: models[name] for name in ("a", "c")}, mean="geometric")
    row = rollouts.select(torch.tensor([0]))
    last = int(row.response_mask[0].nonzero()[-1])
    row.tokens[0, last] = 42
    assert wide.score(row, entropy=True).logprobs[0, last] == MISSING_TOKEN_LOGPROB


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"a": -1.0, "b": 1.0}}, "weights must be at least 0"),
        ({"weights": {"a": 0.0, "b": 0.0}}, "one of them greater than 0"),
        ({"weights": {"a": float("nan"), "b": 1.0}}, "weights must be at least 0"),
        ({"weights": {"a": 1.0, "x": 1.0}}, "weights must name teachers of a, b, got 'x'"),
        ({"weights": {"a": 1.0}}, "got none of 'b'"),
        ({"task_weights": {"math": {"x": 1.0}}}, "task_weights.math must name teachers of a, b, got 'x'"),
        ({"teachers": {}}, "teachers must not be empty"),
    ],
)
def test_invalid_mixtures_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MixtureTeacher(**({"teachers": {"a": OnlyScores(-1.0), "b": OnlyScores(-2.0)}} | settings))


def test_a_task_that_no_prompt_has_is_refused():
    teacher = MixtureTeacher({"a": OnlyScores(-1.0)}, task_weights={"maths": {"a": 1.0}})
    with pytest.raises(UserError, match=r"mix.task_weights: 'maths': no prompt of this teacher has the task"):
        teacher.check("model.teachers.mix", "tiny/student", [Prompt((5,), "mix", "math", None, "p")], 4)


def test_parts_share_the_models_of_other_teachers():
    teacher = MixtureTeacher({"a": HFTeacher("tiny/math"), "b": HFTeacher("tiny/code")})
    shared = deduplicate({"math": HFTeacher("tiny/math"), "mix": teacher})
    assert shared["mix"].teachers["a"] is shared["math"]
    keys = [key for key, _ in shared["mix"].models("model.teachers.mix")]
    assert keys == ["model.teachers.mix.teachers.a", "model.teachers.mix.teachers.b"]

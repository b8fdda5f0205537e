"""Conformance checks of teachers: each fault is found and named, and a teacher without a fault passes."""

import math
import re
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from fireopd.errors import UserError
from fireopd.teachers import HFTeacher, Teacher
from fireopd.teachers.base import leave_unsharded
from fireopd.testing import check_teacher, teacher_checks
from fireopd.testing.plugin_checks import early_weights, example_prompts, violations_of
from fireopd.types import TokenScores


@pytest.fixture(scope="module")
def loaded():
    """A teacher after `setup`."""
    teacher = HFTeacher("tiny/math")
    teacher.setup("model.teachers.kit", torch.device("cpu"), leave_unsharded)
    return teacher


@dataclass
class Wrong(Teacher):
    """Scores of a right teacher, changed by a function of rollouts and scores."""

    change: Any
    inner: HFTeacher
    calls: int = field(default=0, compare=False)

    def check(self, key, student, prompts, response_length):
        pass

    def setup(self, key, device, shard):
        pass

    def score(self, rollouts, *, entropy):
        self.calls += 1
        return self.change(self, rollouts, self.inner.score(rollouts, entropy=entropy))


def logprobs(function):
    """Return a change of the log-probabilities, 0 off the mask."""

    def change(teacher, rollouts, scores):
        values = function(teacher, rollouts, scores.logprobs)
        return replace(scores, logprobs=torch.where(rollouts.response_mask, values, 0.0))

    return change


def entropies(function):
    """Return a change of the entropies, if there are any."""
    return lambda teacher, rollouts, scores: (
        scores if scores.entropy is None else replace(scores, entropy=function(rollouts, scores.entropy))
    )


def cold(teacher, rollouts, scores):
    return teacher.inner.score(replace(rollouts, sampling=replace(rollouts.sampling, temperature=1.0)), entropy=True)


def cold_entropies(teacher, rollouts, scores):
    """Return the entropies of temperature 1."""
    return replace(scores, entropy=cold(teacher, rollouts, scores).entropy)


def modifies(teacher, rollouts, scores):
    rollouts.sampling_logprobs.clamp_(min=-0.5)
    return scores


def misaligned(teacher, rollouts, scores):
    """Return the log-probability of the token after each token."""
    return logprobs(lambda t, r, v: torch.cat([v[:, 1:], v[:, :1]], dim=1))(teacher, rollouts, scores)


def late(teacher, rollouts, scores):
    """Return the log-probability of the token before each token."""
    return logprobs(lambda t, r, v: torch.cat([v[:, :1], v[:, :-1]], dim=1))(teacher, rollouts, scores)


def only_with_entropies(teacher, rollouts, scores):
    return scores if scores.entropy is None else replace(scores, logprobs=2 * scores.logprobs)


def by_place(teacher, rollouts, values):
    return values - torch.arange(len(values))[:, None]


def reads_padding(teacher, rollouts, values):
    return values - (rollouts.tokens * ~rollouts.attention_mask).sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("check", "change", "message"),
    [
        (teacher_checks.returns_valid_scores, change, message)
        for change, message in (
            (lambda t, r, s: replace(s, entropy=None), "returned entropy=None although the entropies were requested"),
            (lambda t, r, s: (s.logprobs, s.entropy), "returned a tuple. Return a TokenScores"),
            (lambda t, r, s: replace(s, logprobs=s.logprobs[:-1]), r"logprobs of shape \[4, 10\], expected \[5, 10\]"),
            (lambda t, r, s: replace(s, logprobs=s.logprobs.long()), "logprobs of torch.int64"),
            (logprobs(lambda t, r, v: -v), "logprobs .* for token .* Return log-probabilities in nats, <= 0"),
            (
                logprobs(lambda t, r, v: v * torch.nan),
                "logprobs nan for token 5 of trajectory 0. Compute the log-softm",
            ),
            (entropies(lambda r, v: v * torch.nan), "entropy nan for token 5 of trajectory 0. Use torch.special.entr"),
            (logprobs(lambda t, r, v: v.bfloat16()), "returns logprobs in torch.bfloat16. Compute them from logits.fl"),
            (entropies(lambda r, v: -v), "returned entropy -.* Return entropies in nats, >= 0"),
            (logprobs(lambda t, r, v: v - t.calls % 7), "in a second call. A teacher is frozen: keep no state"),
            (only_with_entropies, "returns other log-probabilities with entropy=False than with True"),
            (lambda t, r, s: replace(s, logprobs=s.logprobs.clone().requires_grad_()), "Write @torch.no_grad"),
        )
    ]
    + [
        (
            teacher_checks.scores_no_rows,
            logprobs(lambda t, r, v: v - v.max()),
            r"raises \w+ \(test_teacher_checks.py, line",
        ),
        (teacher_checks.gives_equal_scores_again, logprobs(lambda t, r, v: v - t.calls % 7), "keep no state"),
        (teacher_checks.gives_equal_scores_again, logprobs(by_place), "depend on the order of rows"),
        (teacher_checks.scores_each_row_alone, logprobs(lambda t, r, v: v - 0.1 * v.shape[1]), "other rows are read"),
        (teacher_checks.scores_each_row_alone, logprobs(lambda t, r, v: v + r.sampling_logprobs), "of the sampler"),
        (teacher_checks.scores_each_row_alone, logprobs(reads_padding), "with other tokens in the padding"),
        (
            teacher_checks.does_not_modify_the_rollouts,
            modifies,
            r"modifies sampling_logprobs of the rollouts",
        ),
        (teacher_checks.aligns_scores_with_tokens, misaligned, "shifts its scores: .* the entry t - 1. Entry t is"),
        (teacher_checks.aligns_scores_with_tokens, late, "ignores the last token, so its scores are shifted or const"),
        (teacher_checks.aligns_scores_with_tokens, entropies(lambda r, v: v + r.tokens), "depends on the token itself"),
        (teacher_checks.is_a_distribution, logprobs(lambda t, r, v: 2 * v), "total probability of .* it must be 1"),
        (
            teacher_checks.is_a_distribution,
            entropies(lambda r, v: v / 0.693),
            "returns the entropy .* for a distr",
        ),
        (teacher_checks.is_a_distribution, cold_entropies, "returns the entropy .* after the temperature, in nats"),
        (teacher_checks.follows_the_temperature, cold, "ignores the temperature: divide the logits by rollouts.sampl"),
    ],
)
def test_a_fault_is_found_with_the_name_of_the_teacher(loaded, check, change, message):
    case = teacher_checks.TeacherCase(Wrong(change, loaded), example_prompts("tiny/student"), 48, 1e-3)
    [found] = violations_of("Wrong", case, [check])
    assert re.match(f"Wrong .*{message}", found), found


def impossible(scores):
    """Return scores of a distribution in which the token of the lowest probability has the probability 0."""
    return replace(scores, logprobs=scores.logprobs.where(scores.logprobs > -12, -math.inf))


def test_a_teacher_that_scores_in_float64_or_is_uniform_or_excludes_tokens_passes(loaded):
    for change in (
        lambda t, r, s: replace(s, logprobs=s.logprobs.double()),
        lambda t, r, s: impossible(s),
        lambda t, r, s: TokenScores(
            torch.where(r.response_mask, -math.log(48), 0.0), torch.where(r.response_mask, math.log(48), 0.0)
        ),
    ):
        case = teacher_checks.TeacherCase(Wrong(change, loaded), example_prompts("tiny/student"), 48, 1e-3)
        assert violations_of("Right", case, teacher_checks.CHECKS) == []


def test_a_teacher_that_excludes_the_first_candidate_is_aligned(loaded):
    case = teacher_checks.TeacherCase(None, example_prompts("tiny/student"), 48, 1e-3)
    first = min({token for prompt in case.prompts for token in prompt.tokens} | set(case.responses[0]))

    def excluding(teacher, rollouts, scores):
        """Return the scores of a uniform distribution over the other 47 tokens."""
        logprobs = torch.where(rollouts.tokens == first, -math.inf, -math.log(47))
        mask = rollouts.response_mask
        return TokenScores(torch.where(mask, logprobs, 0.0), torch.where(mask, math.log(47), 0.0))

    own = replace(case, teacher=Wrong(excluding, loaded))
    assert violations_of("Right", own, [teacher_checks.aligns_scores_with_tokens]) == []
    shifted = replace(case, teacher=Wrong(lambda t, r, s: late(t, r, excluding(t, r, s)), loaded))
    assert violations_of("Wrong", shifted, [teacher_checks.aligns_scores_with_tokens])


@dataclass
class Unequal(HFTeacher):
    """Compares its loaded state."""

    path: str = "tiny/math"
    state: Any = None

    def setup(self, key, device, shard):
        super().setup(key, device, shard)
        self.state = object()


@dataclass
class Early(HFTeacher):
    """Loads its weights in the constructor."""

    path: str = "tiny/math"

    def __post_init__(self):
        super().__post_init__()
        self.loaded = {"models": [torch.nn.Linear(1, 1)]}


@dataclass
class Constants(HFTeacher):
    """Holds objects without weights, and itself."""

    path: str = "tiny/math"

    def __post_init__(self):
        super().__post_init__()
        self.loss, self.edges, self.me = torch.nn.CrossEntropyLoss(), torch.linspace(0, 1, 5), self
        self.table = [{"x": 1} for _ in range(100_000)]


class Plain(Wrong):
    """No dataclass."""


@dataclass
class Refusing(HFTeacher):
    """Belongs to another student."""

    path: str = "tiny/math"

    def check(self, key, student, prompts, response_length):
        raise UserError(key, student, "another vocabulary", "use a teacher of its family")


def test_settings_and_equality_are_checked():
    with pytest.raises(AssertionError, match="Unequal is not equal to itself after setup"):
        check_teacher(Unequal())
    with pytest.raises(
        AssertionError, match=r"(?s)violates 1 rule .* Early holds a Linear before setup.* in setup, and"
    ):
        check_teacher(Early())
    with pytest.raises(AssertionError, match="is not a dataclass. Write @dataclass above class Plain"):
        check_teacher(Plain(None, None))
    with pytest.raises(TypeError, match=r"is not a Teacher: pass an instance, HFTeacher\(...\)"):
        check_teacher(HFTeacher)
    with pytest.raises(AssertionError, match="(?s)Refusing.check refuses tiny/student: .* Pass the student"):
        check_teacher(Refusing())


def test_weights_are_told_from_constants():
    assert early_weights(Constants()) == []
    for holder in (deque([torch.zeros(2000)]), {"x": ({torch.nn.Linear(1, 1)},)}):
        teacher = Constants()
        teacher.table = holder
        assert len(early_weights(teacher)) == 1

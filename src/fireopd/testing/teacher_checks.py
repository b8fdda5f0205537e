"""Conformance checks of teachers: shapes, alignment of tokens, normalization, temperature, and independence of rows."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fireopd.engines.rollout import collate
from fireopd.errors import UserError
from fireopd.models.distributions import TeacherDistributions
from fireopd.models.loading import load_config, load_tokenizer
from fireopd.teachers import Teacher
from fireopd.teachers.base import leave_unsharded
from fireopd.teachers.contract import checked_distributions, checked_scores
from fireopd.testing.checks import report
from fireopd.testing.plugin_checks import early_weights, example_prompts, settings_violations, violations_of
from fireopd.types import Prompt, Response, RolloutBatch, Sampling, TokenScores

__all__ = ["check_teacher"]

KEY = "model.teachers.kit"
LENGTHS = (4, 1, 3, 5, 2)
"""Lengths of the example responses, tokens."""
TEMPERATURE = 1.5
"""Temperature of a whole distribution: its entropy differs from that at 1."""
LOWEST = -1e4
"""Log-probability in the place of -inf, where differences are formed."""
LARGEST_VOCABULARY = 4096
"""Largest vocabulary for which a whole distribution is compared, one trajectory per token."""


@dataclass(frozen=True)
class TeacherCase:
    """A teacher under test, after `setup`, with example trajectories."""

    teacher: Teacher
    prompts: Sequence[Prompt]
    vocabulary: int
    """Number of token ids of the student."""
    tolerance: float
    """Largest difference between scores that must be equal, nats."""

    def rollouts(
        self, responses: Sequence[Sequence[int]], temperature: float = 1.0, prompts: Sequence[Prompt] = ()
    ) -> RolloutBatch:
        """Return trajectories with given response tokens, after the example prompts in turn by default."""
        rows = prompts or [self.prompts[row % len(self.prompts)] for row in range(len(responses))]
        made = [Response(tuple(tokens), (-1.0,) * len(tokens), finished=True) for tokens in responses]
        return collate(rows, made, range(len(rows)), Sampling(temperature), policy_version=0)

    @property
    def responses(self) -> list[list[int]]:
        """Random response tokens of the lengths `LENGTHS`."""
        generator = torch.Generator().manual_seed(0)
        return [torch.randint(self.vocabulary, (length,), generator=generator).tolist() for length in LENGTHS]

    def score(self, rollouts: RolloutBatch, *, entropy: bool = True) -> TokenScores:
        """Return the checked scores."""
        answer = self.teacher.score(rollouts, entropy=entropy)
        return checked_scores(KEY, self.teacher, answer, rollouts, entropy=entropy)

    def far(self, one: Tensor, other: Tensor) -> bool:
        """Return whether two tensors differ by more than the tolerance."""
        return not torch.allclose(one, other, rtol=1e-4, atol=self.tolerance, equal_nan=True)

    def distribution(self) -> tuple[Tensor, Tensor]:
        """Return log-probabilities of all tokens after one context, [V], and the entropies returned with them, [V].

        The temperature of the rollouts is `TEMPERATURE`.
        """
        before, prompts = self.responses[0][:2], [self.prompts[0]] * self.vocabulary
        rollouts = self.rollouts([[*before, token] for token in range(self.vocabulary)], TEMPERATURE, prompts)
        scores = self.score(rollouts)
        assert scores.entropy is not None
        return scores.logprobs[:, -1], scores.entropy[:, -1]


def check_teacher(teacher: Teacher, student: str = "tiny/student", *, tolerance: float = 1e-3) -> None:
    """Check the contract of a teacher: it is set up on the CPU, and scores random responses.

    Args:
        teacher: an instance, with any settings, before `setup`.
        student: model whose tokens the teacher scores.
        tolerance: largest difference between scores that must be equal, nats; raise it for a teacher in half precision.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    name = type(teacher).__name__
    found = [*settings_violations(teacher, Teacher, frozen=False), *early_weights(teacher)]
    prompts = example_prompts(student)
    size = int(load_config(student, "student").get_text_config().vocab_size)
    case = TeacherCase(teacher, prompts, min(size, len(load_tokenizer(student, "student"))), tolerance)
    before = copy.copy(teacher)
    try:
        teacher.check(KEY, student, prompts, max(LENGTHS))
    except UserError as error:
        report([*found, f"{name}.check refuses {student}: {error} Pass the student that it is for."], teacher)
    found += violations_of(name, case, [_is_set_up])
    if before != teacher:
        found.append(
            f"{name} is not equal to itself after setup, so two teachers with equal settings load the model twice. "
            f"Declare loaded state as field(init=False, compare=False, repr=False)."
        )
    report(found + violations_of(name, case, CHECKS), teacher)


def _is_set_up(case: TeacherCase) -> str:
    case.teacher.setup(KEY, torch.device("cpu"), leave_unsharded)
    return ""


def returns_valid_scores(case: TeacherCase) -> str:
    """Check shape, dtype and range, with and without entropies."""
    rollouts = case.rollouts(case.responses)
    raw = case.teacher.score(rollouts, entropy=True)
    scores, alone = case.score(rollouts), case.score(rollouts, entropy=False)
    if problem := _not_finite(scores) or _half_precision(raw):
        return problem
    if case.far(scores.logprobs, case.score(rollouts).logprobs):
        return "returns other scores for the same rollouts in a second call. A teacher is frozen: keep no state."
    if case.far(scores.logprobs, alone.logprobs):
        return "returns other log-probabilities with entropy=False than with True. Compute both from one distribution."
    if raw.logprobs.requires_grad:
        return "keeps a graph of its computation. Write @torch.no_grad() above score."
    return ""


def _not_finite(scores: TokenScores) -> str:
    """Describe the first log-probability that is NaN, or entropy that is not finite. -inf is a probability of 0."""
    assert scores.entropy is not None
    for name, values, wrong, remedy in (
        ("logprobs", scores.logprobs, scores.logprobs.isnan(), "Compute the log-softmax in float32"),
        ("entropy", scores.entropy, ~scores.entropy.isfinite(), "Use torch.special.entr: p * log p is NaN at p = 0"),
    ):
        if wrong.any():
            row, token = wrong.nonzero()[0].tolist()
            return f"returns {name} {values[row, token].item()} for token {token} of trajectory {row}. {remedy}."
    return ""


def _half_precision(scores: TokenScores) -> str:
    """Describe results in half precision, which has two to three digits."""
    for name, values in (("logprobs", scores.logprobs), ("entropy", scores.entropy)):
        if values is not None and values.dtype.itemsize < 4:
            return f"returns {name} in {values.dtype}. Compute them from logits.float()."
    return ""


def scores_no_rows(case: TeacherCase) -> str:
    """Check a batch without rows, which a process may have."""
    case.score(case.rollouts(case.responses).select(torch.zeros(0, dtype=torch.int64)))
    return ""


def gives_equal_scores_again(case: TeacherCase) -> str:
    """Check that scores do not change with earlier calls, with a second setup, or with the order of rows."""
    rollouts = case.rollouts(case.responses)
    first = case.score(rollouts).logprobs
    case.score(case.rollouts([tokens[::-1] for tokens in case.responses]))
    case.teacher.setup(KEY, torch.device("cpu"), leave_unsharded)
    if case.far(first, case.score(rollouts).logprobs):
        return "returns other scores for the same rollouts in a second call. A teacher is frozen: keep no state."
    order = torch.tensor([3, 1, 4, 0, 2])
    if case.far(first[order], case.score(rollouts.select(order)).logprobs):
        return "returns scores that depend on the order of rows. Score each row by its own tokens only."
    return ""


def scores_each_row_alone(case: TeacherCase) -> str:
    """Check that other rows, padding and the sampler's log-probabilities have no effect."""
    rollouts = case.rollouts(case.responses)
    scores = case.score(rollouts)
    for row in range(len(LENGTHS)):
        part = rollouts.select(torch.tensor([row]))
        alone, width = case.score(part), part.tokens.shape[1]
        if case.far(scores.logprobs[row, :width], alone.logprobs[0]):
            return f"returns other scores for row {row} alone than in a batch: its padding or other rows are read."
    garbage = torch.where(rollouts.attention_mask, rollouts.tokens, case.vocabulary - 1)
    other = replace(rollouts, tokens=garbage, sampling_logprobs=rollouts.sampling_logprobs - 3)
    if case.far(scores.logprobs, case.score(other).logprobs):
        return (
            "returns other scores with other tokens in the padding, or with other log-probabilities of the sampler. "
            "Read tokens where attention_mask is True, and leave sampling_logprobs out."
        )
    return ""


def does_not_modify_the_rollouts(case: TeacherCase) -> str:
    """Check that the rollouts are unchanged."""
    rollouts = case.rollouts(case.responses)
    before = {name: getattr(rollouts, name).clone() for name in ("tokens", "response_mask", "sampling_logprobs")}
    case.score(rollouts)
    changed = [name for name, value in before.items() if not torch.equal(value, getattr(rollouts, name))]
    return f"modifies {', '.join(changed)} of the rollouts. Call .clone() first." if changed else ""


def aligns_scores_with_tokens(case: TeacherCase) -> str:
    """Check that entry t is about token t, given the tokens before it: the last token affects the last entry only."""
    remedy = "Entry t is the log-probability of token t: take it from the model's output at position t - 1."
    ignored, uniform = True, True
    candidates = sorted({token for prompt in case.prompts for token in prompt.tokens} | set(case.responses[0]))[:16]
    for before in (case.responses[3][:-1], *([token] for token in candidates)):
        rows = [[*before, token] for token in candidates]
        scores = case.score(case.rollouts(rows, prompts=[case.prompts[0]] * len(rows)))
        assert scores.entropy is not None
        if case.far(scores.entropy, scores.entropy[:1].expand_as(scores.entropy)):
            return (
                "returns an entropy that depends on the token itself. Entry t is the entropy of the distribution "
                "before token t: the model's output at position t - 1."
            )
        logprobs = scores.logprobs.clamp(min=LOWEST)
        moved = (logprobs - logprobs[:1]).abs().amax(0) > case.tolerance
        if moved[:-1].any():
            distance = len(moved) - 1 - int(moved.nonzero()[0])
            return f"shifts its scores: a change of token t changes the entry t - {distance}. {remedy}"
        ignored &= not moved[-1]
        uniform &= float(logprobs[:, -len(before) - 1 :].std()) <= case.tolerance
    if ignored and not uniform:
        return f"ignores the last token, so its scores are shifted or constant. {remedy}"
    return ""


def is_a_distribution(case: TeacherCase) -> str:
    """Check that the probabilities of all tokens sum to 1, and that the entropy is theirs, in nats."""
    if case.vocabulary > LARGEST_VOCABULARY:
        return ""
    logprobs, entropies = (values.double() for values in case.distribution())
    total, slack = logprobs.exp().sum().item(), max(1e-3, case.tolerance)
    if abs(total - 1) > slack:
        return (
            f"gives all tokens a total probability of {total:.6g} at one position: it must be 1. Use a log-softmax "
            f"over the whole vocabulary, with the natural logarithm."
        )
    expected = torch.special.entr(logprobs.exp()).sum().item()
    if abs(entropies.mean().item() - expected) > 10 * slack or entropies.std() > slack:
        return (
            f"returns the entropy {entropies.mean().item():.6g} for a distribution of entropy {expected:.6g} nats. "
            f"Return -(p * log p).sum() of the distribution before the token, after the temperature, in nats."
        )
    return ""


def follows_the_temperature(case: TeacherCase) -> str:
    """Check that scores change with the temperature of the rollouts, unless the teacher is uniform."""
    cold, hot = (case.score(case.rollouts(case.responses, temperature)).logprobs for temperature in (1.0, 2.0))
    mask = case.rollouts(case.responses).response_mask
    if case.far(cold, hot) or float(cold[mask].clamp(min=LOWEST).std()) <= case.tolerance:
        return ""
    return "ignores the temperature: divide the logits by rollouts.sampling.temperature."


def returns_comparable_distributions(case: TeacherCase) -> str:
    """Check the distributions of a teacher that returns them: those of its own log-probabilities."""
    kind = type(case.teacher)
    if kind.check_distributions is Teacher.check_distributions:
        return ""
    rollouts = case.rollouts(case.responses)
    answer = case.teacher.score_with_distributions(rollouts, entropy=True)
    scores, distributions = checked_distributions(KEY, case.teacher, answer, rollouts, entropy=True)
    if not case.far(scores.logprobs, _logprobs(rollouts, distributions)):
        return ""
    return (
        "returns log-probabilities that are not those of its distributions: "
        "heads[row].log_distribution(hidden_states[row], temperature) belongs to the response tokens of the row."
    )


def _logprobs(rollouts: RolloutBatch, distributions: TeacherDistributions) -> Tensor:
    logprobs = torch.zeros_like(rollouts.sampling_logprobs)
    for row, (states, head) in enumerate(zip(distributions.hidden_states, distributions.heads, strict=True)):
        mask = rollouts.response_mask[row]
        values = head.log_distribution(states, rollouts.sampling.temperature)
        logprobs[row, mask] = values.gather(-1, rollouts.tokens[row, mask][:, None]).squeeze(-1)
    return logprobs


CHECKS = (
    returns_valid_scores,
    scores_no_rows,
    gives_equal_scores_again,
    scores_each_row_alone,
    does_not_modify_the_rollouts,
    aligns_scores_with_tokens,
    is_a_distribution,
    follows_the_temperature,
    returns_comparable_distributions,
)

"""Contract of teachers: each invalid result names the setting, the teacher, the result and the remedy."""

import math

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch

from fireopd.models.distributions import OutputHead, TeacherDistributions
from fireopd.teachers import Teacher, score_by_base, score_by_teachers
from fireopd.training.stopwatch import Stopwatch
from fireopd.types import TokenScores
from fireopd.types.strategy import ContractError


class Answering(Teacher):
    """Returns the result of a function of the rollouts."""

    def __init__(self, answer):
        self.answer = answer

    def check(self, key, student, prompts, response_length):
        pass

    def setup(self, key, device, shard):
        pass

    def score(self, rollouts, *, entropy):
        return self.answer(rollouts)

    def score_with_distributions(self, rollouts, *, entropy):
        return self.answer(rollouts)


def rollouts():
    return rollouts_of(scored_batch(4, 9, teachers=["t"] * 4))


def score(answer, *, entropy=True, distributions=False):
    settings = {"entropy": entropy, "distributions": distributions}
    return score_by_teachers({"t": Answering(answer)}, rollouts(), Stopwatch(), **settings)


def full(batch, value):
    return torch.full(batch.tokens.shape, value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda b: None, "a NoneType. Return a TokenScores"),
        (lambda b: TokenScores(full(b, -1.0)), "entropy=None although .* Return TokenScores"),
        (lambda b: TokenScores(full(b, -1.0)[:2], full(b, 1.0)), r"logprobs of shape \[2, \d\], expected \[4, \d\]"),
        (lambda b: TokenScores([[-1.0]], full(b, 1.0)), "logprobs as a list. Return logprobs as float32"),
        (lambda b: TokenScores(full(b, -1), full(b, 1.0)), "logprobs of torch.int64"),
        (lambda b: TokenScores(full(b, -1.0).to("meta"), full(b, 1.0)), "logprobs on meta, the rollouts are on cpu"),
        (
            lambda b: TokenScores(full(b, 0.5), full(b, 1.0)),
            "logprobs 0.5 for token .* Return log-probabilities",
        ),
        (lambda b: TokenScores(full(b, math.inf), full(b, 1.0)), "logprobs inf for token"),
        (lambda b: TokenScores(full(b, -1.0), full(b, -2.0)), "entropy -2 for token .* Return entropies in nats, >= 0"),
        (lambda b: TokenScores(full(b, -1.0), full(b, 1.0)[:, 1:]), "entropy of shape"),
    ],
)
def test_an_invalid_result_names_the_teacher(answer, message):
    pattern = f"model.teachers.t: 'Answering': returned {message}.*fireopd.testing.check_teacher tests the contract"
    with pytest.raises(ContractError, match=pattern):
        score(answer)


def test_results_within_the_contract_are_accepted_and_masked():
    scores, _ = score(lambda b: TokenScores(full(b, 1e-4).double(), full(b, 2.0).half()))
    mask = rollouts().response_mask
    assert scores.logprobs.dtype == scores.entropy.dtype == torch.float32
    assert (scores.entropy[mask] == 2).all()
    assert (scores.logprobs[~mask] == 0).all()
    unknown, _ = score(lambda b: TokenScores(full(b, math.nan), full(b, 1.0)))
    assert unknown.logprobs[mask].isnan().all(), "the training step skips it, with the teacher's name"
    surplus, _ = score(lambda b: TokenScores(full(b, -1.0), "unused"), entropy=False)
    assert surplus.entropy is None


def test_the_base_model_is_named_by_its_setting():
    with pytest.raises(ContractError, match="model.base: 'Answering': returned logprobs 0.5"):
        score_by_base(Answering(lambda b: TokenScores(full(b, 0.5))), rollouts())
    assert score_by_base(Answering(lambda b: TokenScores(full(b, -1.0), full(b, 1.0))), rollouts()).entropy is None


HEAD = OutputHead(torch.zeros(5, 3), None)


def hidden(batch, extra=0):
    return tuple(torch.zeros(int(length) + extra, 3) for length in batch.response_mask.sum(-1))


@pytest.mark.parametrize(
    ("distributions", "message"),
    [
        (lambda b: None, "returned a NoneType. Return a TeacherDistributions"),
        (lambda b: TeacherDistributions(hidden(b)[:3], (HEAD,) * 4), "of 3 rows and 4 heads for 4 trajectories"),
        (lambda b: TeacherDistributions(hidden(b, 1), (HEAD,) * 4), r"hidden states \[\d, 3\] for trajectory 0 of"),
    ],
)
def test_invalid_distributions_name_the_teacher(distributions, message):
    with pytest.raises(ContractError, match=f"model.teachers.t: 'Answering': .*{message}"):
        score(lambda b: (TokenScores(full(b, -1.0), full(b, 1.0)), distributions(b)), distributions=True)
    with pytest.raises(ContractError, match="Return a pair of TokenScores and TeacherDistributions"):
        score(lambda b: TokenScores(full(b, -1.0), full(b, 1.0)), distributions=True)

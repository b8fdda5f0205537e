"""Contract of rollout engines: each invalid result names the engine, the result and the remedy."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.fakes import ScriptedEngine, full_batch

from fireopd.engines.contract import check_version, checked_probe, checked_responses
from fireopd.engines.rollout import roll_out
from fireopd.training.skipped_steps import invalid_signal
from fireopd.types import Prompt, Response
from fireopd.types.strategy import ContractError

PROMPTS = [Prompt((1, 2), "t", "t", None, f"p{row}") for row in range(2)]


@dataclass
class Answering(ScriptedEngine):
    """Returns any responses."""

    responses: Any = None

    def generate(self, prompts, seeds):
        return self.responses


def responses(tokens=(5, 6), logprobs=(-1.0, -0.5), finished=True):
    return [Response((7,), (-1.0,), True), Response(tokens, logprobs, finished)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "returned a NoneType. Return a list of Response"),
        (responses()[:1], "returned 1 responses to 2 prompts. Return one response per prompt"),
        ([*responses()[:1], "text"], r"returned a str for the prompt p1. Return a Response\(tokens"),
        (responses(()), "returned 0 tokens and 2 log-probabilities for the prompt p1"),
        (responses((), ()), "a response without tokens for the prompt p1. Return at least one token"),
        (responses((5, 48)), "the token id 48 for the prompt p1. Return ids from 0 to 47"),
        (responses((5, -1)), "the token id -1"),
        (responses((5, 2**70)), "a tuple as tokens and 2 log-probabilities"),
        (responses((5, "a")), "a tuple as tokens"),
        (responses((5.5, 6.5)), "token ids of torch.float32 for the prompt p1. Return integers"),
        (responses((True, False)), "token ids of torch.bool"),
        (
            responses((5,) * 9, (-1.0,) * 9),
            "a response of 9 tokens for the prompt p1. Cut it at max_response_length",
        ),
        (responses(logprobs=(-1.0,)), "2 tokens and 1 log-probabilities"),
        (responses(logprobs=(-1.0, None)), "a tuple as log-probabilities"),
        (
            responses(logprobs=(-1.0, 0.5)),
            "the log-probability 0.5 for the prompt p1. Return log-prob",
        ),
        (responses(logprobs=(-1.0, math.inf)), "the log-probability inf"),
        (responses(finished=None), "finished=None"),
    ],
)
def test_an_invalid_rollout_names_the_engine(answer, message):
    engine = Answering(responses=answer, max_response_length=8)
    pattern = f"data.engine: 'Answering': .*{message}.*fireopd.testing.check_engine tests the contract of Answering"
    with pytest.raises(ContractError, match=pattern):
        roll_out(engine, PROMPTS, responses=1, seed=0, step=0, vocabulary=48)


def test_rollouts_within_the_contract_are_accepted():
    for logprobs in ((-1.0, 1e-4), (-1, 0), (-1.0, math.nan), (-math.inf, -1.0)):
        answer = responses(logprobs=logprobs)
        assert checked_responses(Answering(responses=answer), tuple(answer), PROMPTS, 48) == answer
    assert checked_responses(Answering(), [], [], 48) == []


def test_responses_become_tuples():
    made = responses(torch.tensor([5, 6]), [-1.0, -0.5])
    assert checked_responses(Answering(), made, PROMPTS, 48) == responses()


def test_a_log_probability_that_is_not_finite_is_blamed_on_the_engine_unless_the_student_has_it_too():
    batch = full_batch()
    place = tuple(batch.response_mask.nonzero()[3].tolist())
    required = frozenset({"sampling_logprobs", "student_logprobs"})
    for value in (math.nan, -math.inf):
        batch.signals["sampling_logprobs"][place] = value
        assert invalid_signal(batch, required).key == "data.engine"
    batch.signals["student_logprobs"][place] = math.nan
    assert invalid_signal(batch, required).key == "model.student"
    del batch.signals["student_logprobs"]
    assert invalid_signal(batch, required).key == "data.engine"


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ([-1.0, -2.0], "returned a list from probe"),
        ({"a": [-1.0]}, "returned 1 values of a for a probe of 3 tokens"),
        ({"a": [-1.0, math.nan]}, "returned the log-probability nan of a for a probe. Return finite"),
        ({"a": [-1.0, 0.5]}, "returned the log-probability 0.5 of a"),
        ({"a": None}, "returned a NoneType as values of a"),
    ],
)
def test_an_invalid_probe_names_the_engine(probe, message):
    with pytest.raises(ContractError, match=f"data.engine: 'Answering': {message}"):
        checked_probe(Answering(), probe, [1, 2, 3])


def test_a_valid_probe_becomes_tensors_and_a_version_that_was_not_stored_is_named():
    (values,) = checked_probe(Answering(), {"a": (-1, -2.5)}, [1, 2, 3]).values()
    assert torch.equal(values, torch.tensor([-1.0, -2.5]))
    engine = Answering()
    engine.policy_version = 3
    check_version(engine, 3)
    with pytest.raises(ContractError, match=r"'Answering': has policy_version 3 after load_weights\(..., 4\)"):
        check_version(engine, 4)

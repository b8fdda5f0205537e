"""Sampling of benchmark responses: engine and verifier are named with the options of the command."""

from dataclasses import dataclass

import pytest
from helpers.fakes import ScriptedEngine

from fireopd.analysis.evaluate.sampling import LoadedModel, Sampler
from fireopd.models.loading import load_tokenizer
from fireopd.types import Prompt
from fireopd.types.strategy import ContractError
from fireopd.verifiers import ExactMatch, Verifier

PROMPTS = [Prompt((5, 6), "t", "t", "1", f"p{row}", content="1") for row in range(2)]


@dataclass(frozen=True)
class Constant(Verifier):
    """Gives every response one reward."""

    reward: float = 1

    def __call__(self, prompt, response):
        return self.reward

    def final_answer(self, response):
        return response


def sample(engine, verifier):
    model = LoadedModel(engine, load_tokenizer("tiny/student", "MODEL"), vocabulary=48)
    return Sampler(2, seed=0).records(model, PROMPTS, verifier)


@pytest.mark.parametrize(
    ("answer", "verifier", "message"),
    [
        ((5, 48), ExactMatch(), "^--engine: 'ScriptedEngine': returned the token id 48 for the prompt p0"),
        ((), ExactMatch(), "^--engine: 'ScriptedEngine': returned a response without tokens"),
        ((5, 6), Constant(2.0), "^--verifier: 'Constant': returned the reward 2 for a response to the prompt p0"),
        ((5, 6), Constant(None), "^--verifier: 'Constant': returned a NoneType as the reward"),
    ],
)
def test_an_invalid_result_names_the_option(answer, verifier, message):
    with pytest.raises(ContractError, match=message):
        sample(ScriptedEngine(answer=answer), verifier)


def test_records_hold_plain_values():
    [record, _] = sample(ScriptedEngine(answer=(5, 6)), Constant(True))
    assert [type(response.reward) for response in record.responses] == [float, float]
    assert all(response.tokens == 2 for response in record.responses)

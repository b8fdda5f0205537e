"""Choice of the implementation of log-probabilities."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from fireopd.errors import UserError
from fireopd.models import fused_logprobs, kernels
from fireopd.models.base_model_scorer import BaseModelScorer
from fireopd.models.chunked_logprobs import token_logprobs as chunked
from fireopd.models.scorer import CausalScorer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("choice", "device"), [("torch", CPU), ("torch", GPU), ("triton", GPU)])
def test_the_summary_names_the_implementation(monkeypatch, choice, device):
    monkeypatch.setattr(fused_logprobs, "has_triton", lambda: choice == "triton")
    kernels.check_kernels("model.kernels", choice, device, "tiny/student")
    assert kernels.token_logprobs(choice) is (chunked if choice == "torch" else fused_logprobs.token_logprobs)
    assert ("Triton" in kernels.describe_kernels(choice)) == (choice == "triton")


@pytest.mark.parametrize(("device", "problem"), [(CPU, "the run computes on cpu"), (GPU, "not installed")])
def test_kernels_that_cannot_run_are_refused(monkeypatch, device, problem):
    monkeypatch.setattr(fused_logprobs, "has_triton", lambda: False)
    with pytest.raises(UserError, match=problem):
        kernels.check_kernels("model.kernels", "triton", device, "tiny/student")


@pytest.fixture
def calls(monkeypatch):
    """Number of calls of the fused kernels, which the chunked path replaces."""
    made = []

    def fused(*given, **settings):
        made.append(1)
        return chunked(*given, **settings)

    monkeypatch.setitem(kernels.LOGPROBS, "triton", fused)
    return made


def test_the_scorer_takes_the_chosen_implementation(calls, scorer):
    tokens, mask = torch.arange(6)[None], torch.ones(1, 6, dtype=torch.bool)
    chosen = CausalScorer(scorer.model, kernels="triton")
    assert torch.equal(chosen(tokens, mask).logprobs, scorer(tokens, mask).logprobs)
    assert calls == [1]


def test_a_teacher_that_shares_the_students_weights_has_a_choice_of_its_own(calls, scorer):
    student = CausalScorer(scorer.model)
    teacher = BaseModelScorer(student, SimpleNamespace(without=lambda model: nullcontext()))
    assert teacher.kernels == "torch"
    teacher.kernels = "triton"
    teacher(torch.arange(6)[None], torch.ones(1, 6, dtype=torch.bool))
    assert calls == [1]
    assert student.kernels == "torch"


@pytest.mark.parametrize(
    ("tokens", "vocabulary", "chunk"),
    [(1, 1, 1), (7, 3, 5), (18432, 151936, 2**25), (100, 151936, 2**25), (10**6, 64, 2**20)],
)
def test_tiles_hold_at_most_the_chunk_and_are_aligned(tokens, vocabulary, chunk):
    rows, columns = fused_logprobs.forward_tile(tokens, vocabulary, chunk)
    backward = fused_logprobs.backward_columns(tokens, chunk)
    assert rows * columns <= chunk
    assert tokens * backward <= max(chunk, tokens)
    for width in (columns, backward):
        assert width >= 1
        assert width < 128 or width % 128 == 0

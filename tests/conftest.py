"""Fixtures that several test files use. The tests are made for few cores: one thread is faster than two that wait."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, too

import pytest
import torch

from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.prompts import TinyPrompts
from fireopd.training.data import RolloutDataModule

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_data():
    """A data module whose prompts are tokenized; no model is loaded."""
    data = RolloutDataModule(prompts=TinyPrompts(num_training=64, num_validation=6), batch_size=8)
    data.setup("fit")
    return data


@pytest.fixture(scope="session")
def tiny_prompts(tiny_data):
    """Tokenized prompts of both embedded tasks."""
    return tiny_data.training_prompts


@pytest.fixture(scope="session")
def scorer():
    """The embedded student, ready to score."""
    return CausalScorer(load_causal_lm("tiny/student", "student", "float32").eval())

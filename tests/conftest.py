"""Fixtures that several test files use. The tests are made for few cores: one thread is faster than two that wait."""

import logging
import os
from functools import cache

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, too

import docstring_parser
import pytest
import torch
import torch.distributed as dist

from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.prompts import TinyPrompts
from fireopd.training.data import RolloutDataModule

torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").propagate = True  # to pytest, also if Lightning was imported before its handlers
# Tests build hundreds of parsers of the command line, each of which would parse the same docstrings.
docstring_parser.parse_from_object = cache(docstring_parser.parse_from_object)

LONGEST = (
    "test_server_engine.py",
    "test_background_rollout.py",
    "test_fsdp.py",
    "test_resume_sharded.py",
    "test_configs.py",
    "test_compare.py",
    "test_resume.py",
    "test_engine.py",
    "test_bench.py",
    "test_main.py",
    "test_old_checkpoints.py",
    "test_readme.py",
    "test_module.py",
    "test_loop_progress.py",
    "test_code_blocks.py",
    "test_new.py",
)
"""Files that take longest."""
LONGEST_NAME = 60
"""Characters of a parameter in the name of a test."""


def pytest_xdist_auto_num_workers():
    """Return one more than the cores: tests that wait for servers or stopped runs leave a core idle."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items):
    """Begin with the longest files: a process takes whole files, and none is to wait for another at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="module", autouse=True)
def _no_process_group_is_left(request):
    """Fail a file that leaves a default process group of `torch.distributed`, and destroy the group."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
        pytest.fail(f"{request.path.name} left the default process group of torch.distributed: destroy it")


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


def pytest_make_parametrize_id(val):
    """Name a long text or long bytes by the beginning, for readable reports."""
    long = isinstance(val, str | bytes) and len(val) > LONGEST_NAME
    return f"{val[:LONGEST_NAME]!a}..." if long else None

"""Master weights: every accepted precision changes the weights at a small learning rate; half-precision ones do not."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers.models import make_model
from torch.distributed.device_mesh import init_device_mesh

from fireopd.distributed.collectives import full_tensor
from fireopd.distributed.fsdp import Sharding
from fireopd.errors import UserError
from fireopd.models.scorer import CausalScorer
from fireopd.training.master_weights import changed_fraction, check_master_weights, sampled_weights

RATE = 1e-6


@pytest.fixture
def group():
    """A process group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def changed_by_three_steps(model, *, autocast=False, shard=False):
    scorer = CausalScorer(model)
    if shard:
        mesh = init_device_mesh("cpu", (1,))
        Sharding(param_dtype="bfloat16").shard(scorer, mesh, frozen=False)
    before = [full_tensor(p.detach()).clone() for p in scorer.parameters()]
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        tokens = torch.randint(40, (8, 12), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            scorer(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs.mean().neg().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = [full_tensor(p.detach()) for p in scorer.parameters()]
    assert all(p.dtype == before[0].dtype for p in after)
    changed = sum(int((one != other).sum()) for one, other in zip(before, after, strict=True))
    return changed / sum(p.numel() for p in before)


@pytest.mark.parametrize("settings", [{}, {"autocast": True}, {"shard": True}])
def test_accepted_precisions_change_the_weights(group, settings):
    assert changed_by_three_steps(make_model("tied"), **settings) > 0.99


def test_bfloat16_parameters_hardly_change_and_are_refused():
    assert changed_by_three_steps(make_model("tied", torch.bfloat16)) < 0.1
    small = {"student": "tiny/student", "optimizer": partial(torch.optim.AdamW, lr=RATE), "adapter": None}
    check_master_weights(SimpleNamespace(dtype="float32", **small))
    for dtype in ("bfloat16", "float16"):
        with pytest.raises(UserError, match=rf"model.dtype: '{dtype}': .*1e-06, and changes only .* Use float32"):
            check_master_weights(SimpleNamespace(dtype=dtype, **small))
    large = small | {"optimizer": partial(torch.optim.SGD, lr=1.0)}
    check_master_weights(SimpleNamespace(dtype="bfloat16", **large))


def test_the_fraction_is_that_of_rounding():
    """Numbers of [1, 2) in bfloat16 have a distance of 2^-7: steps below half of it change none, steps above it all."""
    weights, half = 1 + torch.arange(128) / 128, 2**-8
    assert changed_fraction([(128, weights)], torch.bfloat16, 0.9 * half) == 0
    assert changed_fraction([(128, weights)], torch.bfloat16, 1.1 * half) == 1
    assert changed_fraction([(3, weights), (1, weights / 2**20)], torch.bfloat16, 0.9 * half) == 0.25


def test_weights_are_read_from_the_files_of_the_model():
    from fireopd.models import load_causal_lm

    model = load_causal_lm("tiny/student", "model.student", "float32")
    sizes = [size for size, _ in sampled_weights("tiny/student")]
    assert sum(sizes) == model.num_parameters()

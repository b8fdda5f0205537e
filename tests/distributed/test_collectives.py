"""Two gloo processes with different numbers of rows against one process."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.models import make_model
from helpers.processes import in_two_processes
from torch.distributed.device_mesh import init_device_mesh

from fireopd.algorithm import fire_loss, loss_fractions
from fireopd.distributed import collectives
from fireopd.distributed.fsdp import Sharding
from fireopd.distributed.gather import gather_batch
from fireopd.errors import UserError
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.training.micro_batches import micro_batches
from fireopd.types import Source
from fireopd.weighters import EntropyWeighter

ROWS, WIDTH = 7, 12
METHOD = Method(TeacherLikelihoodFilter(0.3), EntropyWeighter())


def global_batch(keep_only=None):
    batch = replace(scored_batch(ROWS, WIDTH, seed=5, dtype=torch.float64), tasks=tuple("abcdefg"))
    if keep_only is not None:
        raised = batch.teacher_logprobs.clone()
        raised[keep_only] = -1e-3
        batch = replace(batch, signals=dict(batch.signals) | {"teacher_logprobs": raised})
    return batch


def rows_of_rank(rank, batch):
    """Return the rows of one rank, without padding columns."""
    rows = range(2) if rank == 0 else range(2, ROWS)
    part = batch.select(rows)
    width = int(rollouts_of(part).attention_mask.sum(-1).max())
    signals = {name: value[:, :width] for name, value in part.signals.items()}
    cut = {name: getattr(part, name)[:, :width] for name in ("tokens", "response_mask")}
    cut |= {} if part.sources is None else {"sources": part.sources[:, :width]}
    return replace(part, **cut, signals=signals)


def authored(batch):
    """Return the batch with tokens of a teacher and given ones in the rows of rank 1."""
    sources = batch.authors.clone()
    for row, author in ((3, Source.TEACHER), (5, Source.GIVEN)):
        sources[row, batch.response_mask[row].nonzero()[:2]] = author
    return replace(batch, sources=sources)


def gathered_sources(rank):
    """Return the authors of the global batch; on rank 0 the student wrote all tokens, which needs no authors."""
    own = rows_of_rank(rank, authored(global_batch()))
    return gather_batch(own if rank else replace(own, sources=None))[0].sources


def loss_and_gradient(local):
    """Compute the update of `training_step` with a lookup table as the model."""
    batch, own = gather_batch(local)
    targets = METHOD.targets(batch)
    rows = targets.keep.nonzero().squeeze(-1)
    shares = torch.zeros(targets.mask.shape, dtype=torch.float64)
    shares[rows] = loss_fractions(targets.mask[rows], "token")
    table = torch.zeros(40, 40, dtype=torch.float64, requires_grad=True)
    loss, passes = torch.zeros((), dtype=torch.float64), 0
    for micro in micro_batches(batch, shares, own, rows, 20):
        tokens = micro.tokens
        old_logprobs = batch.student_logprobs[micro.rows, : tokens.shape[1]]
        moved = torch.cat([torch.zeros(len(tokens), 1), table[tokens[:, :-1], tokens[:, 1:]]], dim=1)
        made = targets.select(micro.rows, tokens.shape[1])
        part = fire_loss(old_logprobs + moved, old_logprobs, made, micro.fractions, 0.2)
        part.backward()
        loss, passes = loss + part.detach(), passes + 1
    return batch, collectives.all_reduce_sum(loss), collectives.all_reduce_sum(table.grad), passes


def sharded_scores(rank, rows=None):
    """Return the scores of this rank's rows by a sharded model."""
    scorer, mesh = CausalScorer(make_model("tied")), init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    Sharding().shard(scorer, mesh, frozen=True)
    own = rollouts_of(rows_of_rank(rank, global_batch()))
    if rows is not None and rank == 0:
        own = own.select(torch.arange(rows))
    scores = score_rollouts(scorer, own, entropy=True, token_budget=20)
    return {"logprobs": scores.logprobs, "entropy": scores.entropy}


def worker(rank, keep_only, folder):
    batch, loss, gradient, passes = loss_and_gradient(rows_of_rank(rank, global_batch(keep_only)))
    saved = {"tokens": batch.tokens, "signals": dict(batch.signals), "names": (batch.teachers, batch.tasks)}
    saved |= {"loss": loss, "gradient": gradient, "passes": passes}
    saved |= {"sources": (batch.sources, gathered_sources(rank))}
    saved |= {"scores": sharded_scores(rank), "of_no_rows": sharded_scores(rank, rows=0)["logprobs"]}
    torch.save(saved, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("keep_only", [None, slice(2, ROWS)], ids=["both ranks keep rows", "rank 0 keeps none"])
def test_two_processes_equal_one(tmp_path, keep_only):
    in_two_processes(worker, keep_only, tmp_path)
    full = global_batch(keep_only)
    if keep_only is not None:
        assert not METHOD.targets(full).keep[:2].any()
    _, loss, gradient, _ = loss_and_gradient(full)
    answers = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert answers[0]["passes"] == answers[1]["passes"], "sharded models need the same number of forward passes"
    for answer in answers:
        width = answer["tokens"].shape[1]
        seen = rollouts_of(full).attention_mask[:, :width]
        assert torch.equal(answer["tokens"] * seen, full.tokens[:, :width] * seen)
        assert answer["names"] == (full.teachers, full.tasks)
        assert answer["sources"][0] is None
        assert torch.equal(answer["sources"][1], authored(full).sources[:, :width])
        for name, value in answer["signals"].items():
            assert torch.equal(value, full.signals[name][:, :width]), name
        torch.testing.assert_close(answer["loss"], loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(answer["gradient"], gradient, rtol=1e-12, atol=1e-15)
    assert gradient.abs().max() > 0
    for rank, answer in enumerate(answers):
        own = rollouts_of(rows_of_rank(rank, global_batch()))
        expected = score_rollouts(CausalScorer(make_model("tied")), own, entropy=True, token_budget=10_000)
        for name, value in answer["scores"].items():
            torch.testing.assert_close(value, getattr(expected, name), rtol=0, atol=1e-5)
        if rank == 0:
            assert answer["of_no_rows"].numel() == 0
        else:
            torch.testing.assert_close(answer["of_no_rows"], expected.logprobs, rtol=0, atol=1e-5)


def test_collectives_of_one_process_return_their_input():
    batch = scored_batch()
    gathered, own = gather_batch(batch)
    assert gathered is batch
    assert own == slice(0, 6)
    assert collectives.all_reduce_max(3, torch.device("cpu")) == 3


def raising(rank, folder):
    collectives.raise_on_all_ranks(None)
    try:
        collectives.raise_on_all_ranks(UserError("key", 3, "it broke", "fix it") if rank == 1 else None)
    except UserError as error:
        (folder / str(rank)).write_text(str(error))


def test_an_error_is_raised_on_all_ranks(tmp_path):
    in_two_processes(raising, tmp_path)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["key: 3: it broke. Fix it."] * 2
    with pytest.raises(UserError, match="it broke"):
        collectives.raise_on_all_ranks(UserError("key", 3, "it broke", "fix it"))

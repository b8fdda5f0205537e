"""Trial of the weight sync: names the tensors that do not arrive, and leaves the student as it was."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from fireopd.distributed.fsdp import Sharding
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.models.loading import load_causal_lm
from fireopd.models.scorer import CausalScorer
from fireopd.models.weight_stream import WeightStream
from fireopd.training.weight_trial import TRIAL_VERSION, Changes, SyncTrial, changed, planned_changes

TOKENS = [(7 * place) % 46 + 2 for place in range(40)]
NORM = "model.layers.2.self_attn.k_norm.weight"


class Keeping(HFEngine):
    """Keeps some tensors."""

    kept = ()

    def load_weights(self, weights, policy_version):
        super().load_weights(((n, t) for n, t in weights if not n.startswith(self.kept)), policy_version)


@pytest.fixture(scope="module")
def run():
    student = CausalScorer(load_causal_lm("tiny/student", "x", "float32"))
    trainer = SimpleNamespace(precision="32-true", strategy=SimpleNamespace())
    trainer.strategy.precision_plugin = SimpleNamespace(forward_context=nullcontext)
    run = SimpleNamespace(student=student, student_name="tiny/student", dtype_name="float32", sharding=Sharding())
    run.trainer, run.device, run.policy_version = trainer, torch.device("cpu"), 0
    run.student_weights = lambda: WeightStream(student.model)
    return run


def engine_of(dtype, *kept):
    engine = Keeping(dtype=dtype)
    engine.setup("tiny/student", torch.device("cpu"))
    engine.kept = kept
    return engine


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sync_that_arrives_passes_and_leaves_the_student_as_it_was(run, dtype):
    engine, before = engine_of(dtype), [p.clone() for p in run.student.parameters()]
    trial = SyncTrial(run, engine, TOKENS)
    trial.run()
    assert trial.syncs == (1 if dtype == "float32" else 2)
    assert engine.policy_version == TRIAL_VERSION
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.parameters(), strict=True))


@pytest.mark.parametrize(
    ("dtype", "kept", "named"),
    [
        ("bfloat16", (NORM,), NORM),
        ("float32", ("model.norm", NORM), f"{NORM}, model.norm.weight"),
        ("bfloat16", ("model.layers.1.",), r"model.layers.1.\S+, \S+ and perhaps others"),
    ],
)
def test_tensors_that_do_not_arrive_are_named(run, dtype, kept, named):
    engine, before = engine_of(dtype, *kept), [p.clone() for p in run.student.parameters()]
    with pytest.raises(UserError, match=f"a change of .*{named}.* did not arrive in Keeping"):
        SyncTrial(run, engine, TOKENS).run()
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.parameters(), strict=True))
    assert engine.policy_version == 0
    torch.testing.assert_close(engine.model.lm_head.weight, run.student.head.weight.to(engine.model.dtype))


def test_a_stale_copy_of_a_tied_head_is_found(run):
    engine = engine_of("bfloat16")
    engine.model.lm_head.weight = torch.nn.Parameter(engine.model.lm_head.weight.clone(), requires_grad=False)
    with pytest.raises(UserError, match=r"a change of model.embed_tokens.weight did not arrive"):
        SyncTrial(run, engine, TOKENS).run()


def test_changed_models_overflow_in_float16(run):
    trial = SyncTrial(run, engine_of("float16", "model.norm"), TOKENS)
    trial.run()
    assert trial.syncs == 0


def test_weights_are_restored_bit_by_bit_also_after_an_error():
    values = torch.tensor([[0.0, -0.0, 1e-45, 2e-38], [3.4e38, float("inf"), float("nan"), -7e-39]])
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 2), "b": torch.nn.Linear(4, 2)}).requires_grad_(False)
    for name in "ab":
        model[name].weight.copy_(values)
    with pytest.raises(KeyError):
        _change_and_fail(model, values)
    for name in "ab":
        assert torch.equal(model[name].weight.view(torch.int32), values.view(torch.int32))


def _change_and_fail(model, values):
    with changed(model, Changes(frozenset({"a.weight"}), frozenset({"b.weight"}))):
        assert not torch.equal(model["a"].weight.sign(), values.sign())
        assert model["b"].weight[0, 3] < 1e-45
        raise KeyError


def test_trials_in_half_precision_take_the_layers_in_turns():
    tensors = {f"model.layers.{layer}.{part}": torch.zeros(shape) for layer in range(30) for part, shape in SHAPES}
    tensors |= {"model.norm.weight": torch.zeros(4), "lm_head.weight": torch.zeros(9, 4), "steps": torch.zeros(1).int()}
    [everything] = planned_changes(tensors, half=False)
    assert everything == Changes(frozenset(tensors) - {"steps"})
    trials = planned_changes(tensors, half=True)
    assert len(trials) == 6
    assert frozenset().union(*(trial.flipped for trial in trials)) == everything.flipped
    for trial in trials:
        assert len(trial.flipped) == 2 + 5 * 2
        assert trial.muted == {f"model.layers.{layer}.w" for layer in range(30)} - trial.flipped


SHAPES = (("w", (4, 4)), ("norm", (4,)))

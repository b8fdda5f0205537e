"""Weight sync: a probe verifies it, and a run whose engine kept older weights stops."""

from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.training import TEACHERS, fit, make_data, make_module
from lightning.pytorch.callbacks import Callback

from fireopd.distributed.fsdp import Sharding
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.filters import KeepAll
from fireopd.training.module import FiReOPDModule
from fireopd.training.weight_probe import Probe, allowed_gap


class Deaf(HFEngine):
    """Says that it took new weights, and skips one time."""

    skipped = 2

    def load_weights(self, weights, policy_version):
        if policy_version == self.skipped:
            self.policy_version = policy_version
        else:
            super().load_weights(weights, policy_version)


@dataclass
class Noting(HFEngine):
    """Records its probes."""

    probes: list = field(default_factory=list)

    def probe(self, tokens):
        self.probes.append(list(tokens))
        return super().probe(tokens)


class HeadKept(HFEngine):
    """Loads all but the output head, as vLLM does on a CPU without our repacking."""

    def load_weights(self, weights, policy_version):
        super().load_weights(((n, t) for n, t in weights if "embed_tokens" not in n), policy_version)


@pytest.mark.parametrize(
    ("engine", "problem"),
    [(Deaf, "got the weights of version 2, but"), (HeadKept, "a change of model.embed_tokens.weight did not arrive")],
)
def test_a_sync_that_does_not_arrive_ends_the_run(tmp_path, engine, problem):
    with pytest.raises(UserError, match=problem) as error:
        fit(make_module(), make_data(32, engine=engine(max_response_length=24)), tmp_path)
    assert str(error.value).startswith("data.engine.max_probe_gap: 0.001: ")


@pytest.mark.parametrize(
    ("engine", "precision", "param_dtype", "bound"),
    [
        ("float32", "32-true", None, 1e-3),
        ("bfloat16", "32-true", None, 0.1),
        ("float32", "bf16-mixed", None, 0.1),
        ("float32", "32-true", "bfloat16", 0.1),
    ],
)
def test_half_precision_has_a_wider_bound(engine, precision, param_dtype, bound):
    student = SimpleNamespace(sharded=param_dtype is not None)
    module = SimpleNamespace(dtype_name="float32", student=student, sharding=Sharding(param_dtype))
    module.trainer = SimpleNamespace(precision=precision)
    assert allowed_gap(module, HFEngine(dtype=engine)) == bound
    assert allowed_gap(module, HFEngine(dtype=engine, max_probe_gap=0.2)) == 0.2


def test_an_engine_in_a_lower_precision_agrees(tmp_path):
    engine = HFEngine(max_response_length=8, dtype="bfloat16")
    notes, _ = fit(make_module(), make_data(16, engine=engine), tmp_path)
    assert 1e-3 < notes.metrics[-1]["rollout/sampler_gap"] < 0.5


def test_the_mean_decides_and_single_tokens_have_a_wide_bound():
    student = torch.full((100,), -1.0)
    for gaps, wrong in (([0.3, 0.9], False), ([0.11] * 100, True), ([2.1], True), ([0.09] * 100, False)):
        off = torch.zeros(100)
        off[: len(gaps)] = torch.tensor(gaps)
        problem = Probe([0] * 101, student, {"vLLM": student - off}).disagreement(0.1)
        assert (problem is not None) == wrong
    assert problem is None
    assert "vLLM are nan nats" in Probe([0] * 101, student, {"vLLM": student * torch.nan}).disagreement(0.1)


@pytest.mark.parametrize(
    ("student", "engine", "stale"), [(0.001, 0.0, True), (0.001, 1e-6, False), (0.0, 0.0, False), (1e-5, 0.0, False)]
)
def test_an_engine_that_repeats_its_values_kept_its_weights(student, engine, stale):
    before = torch.linspace(-2, -1, 50)
    old = Probe([0] * 51, before, {"a": before, "new server": before})
    new = Probe([0] * 51, before - student, {"a": before - engine})
    problem = new.staleness(old)
    assert (problem is not None) == stale
    if stale:
        assert "log-probabilities of a on the previous probe are those before the sync" in problem


def test_bfloat16_rounding_hides_no_skipped_sync(tmp_path):
    """One step at a learning rate of 1e-5 is smaller than the noise of bfloat16."""
    engine = Deaf(max_response_length=16, dtype="bfloat16")
    module = make_module(optimizer=partial(torch.optim.AdamW, lr=1e-5))
    with pytest.raises(UserError, match="version 2, but the log-probabilities of HFEngine on the previous probe"):
        fit(module, make_data(32, engine=engine), tmp_path)


def test_the_probe_is_a_trajectory_of_the_last_update(tmp_path):
    class Outputs(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.tokens, self.keep = outputs["batch"].tokens, outputs["targets"].keep

    outputs, engine = Outputs(), Noting(max_response_length=24)
    fit(make_module(), make_data(8, engine=engine), tmp_path, callbacks=[outputs])
    trial, *probes = engine.probes
    assert len(probes) == 3, "at the start, and after the step, the first one again"
    assert len(trial) > len(probes[0])
    assert probes[0] == probes[1]
    rows = [row[: len(probes[2])].tolist() for row in outputs.tokens[outputs.keep]]
    assert probes[2] in rows


def test_a_probe_leaves_room_for_a_token_in_a_full_context(tmp_path):
    data = make_data(8, engine=Noting(max_response_length=4))
    fit(make_module(trajectory_filter=KeepAll()), data, tmp_path)
    longest = max(len(prompt.tokens) for prompt in data.training_prompts)
    trial, first, _, second = data.engine.probes
    assert len(trial) == longest + 4 - 1
    assert len(first) == longest
    assert len(second) < longest + 4


def test_a_probe_that_is_not_finite_is_blamed_on_the_engine_or_on_the_student(tmp_path):
    class Broken(HFEngine):
        def probe(self, tokens):
            return {"broken": [float("nan")] * (len(tokens) - 1)}

    with pytest.raises(UserError, match="data.engine: 'Broken': returned the log-probability nan of broken"):
        fit(make_module(), make_data(8, engine=Broken(max_response_length=8)), tmp_path)

    class Overflowing(FiReOPDModule):
        def configure_model(self):
            super().configure_model()
            self.student.requires_grad_(False)
            for parameter in self.student.parameters():
                parameter.mul_(torch.inf)
            self.student.requires_grad_()

    module = Overflowing(dict(TEACHERS))
    with pytest.raises(UserError, match="model.student: 'tiny/student': .*not finite.* Use model.dtype"):
        fit(module, make_data(8, engine=HFEngine(max_response_length=8)), tmp_path)


def test_an_engine_that_does_not_store_the_version_is_named(tmp_path):
    class Unversioned(HFEngine):
        def load_weights(self, weights, policy_version):
            super().load_weights(weights, policy_version=0 if policy_version == 1 else policy_version)

    with pytest.raises(UserError, match="data.engine: 'Unversioned': has policy_version 0 after load_weights.*, 1"):
        fit(make_module(), make_data(8, engine=Unversioned(max_response_length=8)), tmp_path)


def test_the_engine_scores_a_probe_like_its_model():
    engine = HFEngine()
    engine.setup("tiny/math", torch.device("cpu"))
    tokens = [5, 8, 43, 7]
    with torch.no_grad():
        logits = engine.model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    expected = logits.gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(engine.probe(tokens)["HFEngine"]), expected)

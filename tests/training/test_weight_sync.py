"""Weight sync: a probe verifies it, and a run whose engine kept older weights stops."""

from dataclasses import dataclass, field

import pytest
import torch
from helpers.training import TEACHERS, fit, make_data, make_module
from lightning.pytorch.callbacks import Callback

from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.filters import KeepAll
from fireopd.training.module import FiReOPDModule


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


@pytest.mark.parametrize(("engine", "version"), [(Deaf, 2), (HeadKept, 1)])
def test_a_sync_that_does_not_arrive_ends_the_run(tmp_path, engine, version):
    with pytest.raises(UserError, match=f"HFEngine got the weights of version {version}, but on a probe") as error:
        fit(make_module(), make_data(32, engine=engine(max_response_length=24)), tmp_path)
    assert str(error.value).startswith("data.engine.max_probe_gap: 0.001: ")


def test_an_engine_in_a_lower_precision_may_be_further_off(tmp_path):
    engine = HFEngine(max_response_length=8, dtype="bfloat16", max_probe_gap=2e-3)
    with pytest.raises(UserError, match="Raise it if the engine computes in another dtype than the student"):
        fit(make_module(), make_data(8, engine=engine), tmp_path)
    engine = HFEngine(max_response_length=8, dtype="bfloat16", max_probe_gap=0.5)
    notes, _ = fit(make_module(), make_data(16, engine=engine), tmp_path)
    assert 1e-3 < notes.metrics[-1]["rollout/sampler_gap"] < 0.5


def test_the_probe_is_a_trajectory_of_the_last_update(tmp_path):
    class Outputs(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.tokens, self.keep = outputs["batch"].tokens, outputs["targets"].keep

    outputs, engine = Outputs(), Noting(max_response_length=24)
    fit(make_module(), make_data(8, engine=engine), tmp_path, callbacks=[outputs])
    probes = engine.probes
    assert len(probes) == 2, "at the start, and after the step"
    rows = [row[: len(probes[1])].tolist() for row in outputs.tokens[outputs.keep]]
    assert probes[1] in rows


def test_a_probe_leaves_room_for_a_token_in_a_full_context(tmp_path):
    data = make_data(8, engine=Noting(max_response_length=4))
    fit(make_module(trajectory_filter=KeepAll()), data, tmp_path)
    longest = max(len(prompt.tokens) for prompt in data.training_prompts)
    first, second = data.engine.probes
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

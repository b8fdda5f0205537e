"""Targets during the update: same loss, gradient and parameters as before the update, one forward pass fewer."""

from dataclasses import dataclass, replace

import pytest
import torch
from helpers.fakes import scored_batch
from helpers.training import Notes, fit, make_data, make_module
from lightning.pytorch.callbacks import Callback

from fireopd.callbacks import RolloutRecorder
from fireopd.filters import AgreementFilter, AllOf, KeepAll, LengthFilter, TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.objectives import EntropyGatedKL, GeneralizedJSD, ReverseKL, SkewKL
from fireopd.training.step_metrics import step_diagnostics
from fireopd.training.update_targets import update_targets
from fireopd.types import TokenScores
from fireopd.weighters import EntropyWeighter, PositionWeighter, ProductOf, TeacherLikelihoodWeighter, UniformWeighter

OPD = {"trajectory_filter": KeepAll(), "token_weighter": UniformWeighter()}
METHODS = {
    "opd": OPD,
    "filter": {"token_weighter": UniformWeighter()},
    "weights": {**OPD, "token_weighter": ProductOf([PositionWeighter()]), "normalization": "none"},
    "direct": {"token_weighter": UniformWeighter(), "objective": GeneralizedJSD(), "reduction": "trajectory"},
    "both": {"token_weighter": PositionWeighter(), "objective": EntropyGatedKL(0.5), "importance_cap": 1.0},
}


class Passes(Callback):
    """Counts the rows that the student reads, with and without a gradient, and keeps what the steps return."""

    def __init__(self):
        self.rows, self.outputs = {True: 0, False: 0}, []

    def on_train_start(self, trainer, pl_module):
        def count(module, args):
            self.rows[torch.is_grad_enabled()] += len(args[0])

        pl_module.student.register_forward_pre_hook(count)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.outputs.append(outputs)


@pytest.mark.parametrize("name", METHODS)
def test_the_pass_that_is_saved_changes_nothing(tmp_path, name):
    runs, extra = [], [frozenset(), frozenset({"student_logprobs"})]
    for signals in extra:
        module = make_module(**METHODS[name], extra_signals=signals, token_budget=200)
        assert module.scores_student_first == bool(signals)
        notes, passes = Notes(), Passes()
        fit(module, make_data(8, seed=5), tmp_path, callbacks=[notes, passes])
        runs.append((notes, passes))
    (lean, saved), (plain, full) = runs
    probes = saved.rows[False]  # of the weights' synchronisation
    assert probes < 4
    assert full.rows[False] == probes + 8
    assert saved.rows[True] == full.rows[True] == int(saved.outputs[0]["targets"].keep.sum())
    for tag in ("train/loss", "train/grad_norm", "fire/keep_ratio", "fire/weight_ess", "fire/importance_mean"):
        assert lean.metrics[0][tag] == pytest.approx(plain.metrics[0][tag], rel=1e-5, abs=1e-7), tag
    for one, other in zip(lean.weights[0], plain.weights[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    for target, expected in full.outputs[0]["targets"].tensors.items():
        torch.testing.assert_close(saved.outputs[0]["targets"].tensors[target], expected, rtol=1e-4, atol=1e-5)


def test_what_is_dropped_is_not_measured(tmp_path):
    passes = Passes()
    module = make_module(token_weighter=UniformWeighter(), trajectory_filter=TeacherLikelihoodFilter(0.5))
    notes = Notes()
    fit(module, make_data(8), tmp_path, callbacks=[notes, passes])
    batch, targets = (passes.outputs[0][name] for name in ("batch", "targets"))
    assert torch.equal(batch.student_scored, targets.keep)
    assert targets.keep.sum() == 4
    kept = batch.response_mask & targets.keep[:, None]
    assert (batch.student_logprobs[kept] < 0).all()
    assert batch.student_logprobs[~kept].abs().max() == 0
    gap = (batch.student_logprobs - batch.teacher_logprobs)[kept].mean().item()
    assert notes.metrics[0]["train/reverse_kl"] == pytest.approx(gap, abs=1e-6)
    gap = (batch.student_logprobs - batch.sampling_logprobs)[kept].abs().max().item()
    assert notes.metrics[0]["rollout/sampler_gap"] == pytest.approx(gap, rel=1e-5)
    assert gap < 1e-3, "a token that was not read would be nats away"


def test_curves_by_quarter_are_about_the_rows_that_were_read():
    batch = scored_batch(6, 11)
    keep = torch.tensor([True, False] * 3)
    values = step_diagnostics(replace(batch, student_scored=keep), Method().targets(batch))
    of_read = batch.select([0, 2, 4])
    alone = step_diagnostics(of_read, Method().targets(of_read))
    for name in ("kl", "entropy_student"):
        for quarter in range(1, 5):
            tag = f"position/quarter_{quarter}/{name}"
            assert values[tag] == pytest.approx(alone[tag], rel=1e-5), tag


def test_a_teacher_of_whose_rows_none_was_read_has_no_distance():
    batch = scored_batch(6, 11, teachers=["one", "other"] * 3)
    keep = torch.tensor([True, False] * 3)
    values = step_diagnostics(replace(batch, student_scored=keep), Method(LengthFilter()).targets(batch))
    assert "kl/one" in values
    assert "kl/other" not in values
    gap = (batch.student_logprobs - batch.teacher_logprobs)[keep][batch.response_mask[keep]]
    assert values["kl/one"] == pytest.approx(gap.mean().item(), rel=1e-5)
    assert values["kl_response/one"] == pytest.approx(gap.sum().item() / 3, rel=1e-5)
    nothing = step_diagnostics(replace(batch, student_scored=torch.zeros(6).bool()), Method().targets(batch))
    assert not nothing.keys() & {"kl/one", "train/reverse_kl", "rollout/sampler_gap", "entropy/student"}
    assert "entropy/teacher" in nothing


@dataclass(frozen=True)
class Whitened(ReverseKL):
    """Looks at the whole batch, and inherits from what does not."""

    def advantage(self, batch):
        """Return float32 [N, L]."""
        return super().advantage(batch) - super().advantage(batch).mean()


@pytest.mark.parametrize(
    ("first", "method"),
    [
        (False, Method()),
        (False, Method(AllOf([LengthFilter(), TeacherLikelihoodFilter()]))),
        (False, Method(objective=SkewKL(), token_weighter=ProductOf([PositionWeighter(), UniformWeighter()]))),
        (True, Method(token_weighter=EntropyWeighter())),
        (True, Method(token_weighter=ProductOf([UniformWeighter(), TeacherLikelihoodWeighter()]))),
        (True, Method(AgreementFilter())),
        (True, Method(AllOf([LengthFilter(), AgreementFilter()]))),
        (True, Method(objective=Whitened())),
        (True, Method(normalization="batch")),
        (True, Method(population="micro_batch_of_one")),
    ],
)
def test_methods_that_score_the_student_first(first, method):
    assert method.scores_student_first == first


def test_several_updates_and_recordings_score_the_student_first(tmp_path):
    assert not make_module(**OPD).scores_student_first
    assert make_module(**OPD, mini_batches=2).scores_student_first
    assert make_module(**OPD, epochs=2).scores_student_first
    assert not make_module(**OPD, extra_signals=frozenset({"teacher_entropy"})).scores_student_first
    module, passes = make_module(token_weighter=UniformWeighter()), Passes()
    fit(module, make_data(8), tmp_path, callbacks=[RolloutRecorder(), passes])
    batch = passes.outputs[0]["batch"]
    assert batch.student_scored is None
    assert (batch.student_logprobs[batch.response_mask] < 0).all()


def test_targets_before_and_during_the_update_are_equal():
    """Row by row, in any order, without the padding."""
    batch = scored_batch(7, 12, seed=3)
    method = Method(TeacherLikelihoodFilter(0.4), PositionWeighter(), EntropyGatedKL(0.5))
    unread = replace(batch, signals={n: v for n, v in batch.signals.items() if not n.startswith("student")})
    early, late = (update_targets(method, b, usable=True, single=False) for b in (batch, unread))
    assert torch.equal(early.keep, late.keep)
    kept = early.keep.nonzero().squeeze(-1).flip(0)
    for rows in kept.split(2):
        width = int(batch.response_mask[rows].any(0).nonzero().max()) + 1
        scores = TokenScores(batch.student_logprobs[rows, :width], batch.student_entropy[rows, :width])
        (old, one), (expected, other) = late.of_rows(rows, scores), early.of_rows(rows, scores)
        assert torch.equal(old, expected)
        for name, value in one.tensors.items():
            torch.testing.assert_close(value, other.tensors[name])
    whole, targets = late.complete()
    assert torch.equal(whole.student_scored, early.keep)
    for name, value in targets.tensors.items():
        torch.testing.assert_close(value, early.complete()[1].tensors[name])


@pytest.mark.parametrize("single", [True, False])
def test_the_ratio_of_a_single_update_is_exactly_1(single):
    """The student's scores of the update differ from those of the earlier pass by rounding in other micro-batches."""
    batch, method = scored_batch(5, 9, seed=4), Method()
    rows = torch.tensor([1, 3])
    logprobs = (batch.student_logprobs[rows] + 0.01).bfloat16().float().requires_grad_()
    unread = replace(batch, signals={n: v for n, v in batch.signals.items() if not n.startswith("student")})
    old, _ = update_targets(method, batch, usable=True, single=single).of_rows(rows, TokenScores(logprobs))
    assert not old.requires_grad
    assert torch.equal(old, logprobs) == single
    if single:
        late, _ = update_targets(method, unread, usable=True, single=True).of_rows(rows, TokenScores(logprobs))
        assert torch.equal(late, logprobs)


def test_a_filter_is_called_once_since_it_may_have_a_state():
    batch, asked = scored_batch(5, 9, seed=4), []

    class Asked(KeepAll):
        def __call__(self, batch):
            asked.append(len(batch.teachers))
            return super().__call__(batch)

    unread = replace(batch, signals={n: v for n, v in batch.signals.items() if not n.startswith("student")})
    late = update_targets(Method(Asked()), unread, usable=True, single=True)
    late.of_rows(torch.tensor([1, 3]), TokenScores(batch.student_logprobs[[1, 3]]))
    late.complete()
    assert asked == [5]

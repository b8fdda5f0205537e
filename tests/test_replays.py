"""What methods make of recorded rollouts, on files whose numbers can be worked out by hand."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from fakes import scored_batch

from fireopd.algorithm import fire_loss, loss_shares
from fireopd.cli import main
from fireopd.comparisons.gradients import alignments, gradient
from fireopd.comparisons.replays import Recording, agreements, length_buckets, portray
from fireopd.filters import KeepAll, LengthFilter
from fireopd.methods import Method
from fireopd.models import load_causal_lm
from fireopd.objectives import Objective, ReverseKL
from fireopd.recordings import write_scored
from fireopd.scoring import CausalScorer
from fireopd.types import Sampling
from fireopd.weighters import TokenWeighter, UniformWeighter

LENGTHS = (1, 2, 3, 4)


@dataclass(frozen=True)
class PlaceWeighter(TokenWeighter):
    """Weighs the tokens of a row 1, 2, 3 ..."""

    def __call__(self, batch):
        return batch.response_mask.float().cumsum(-1)


@dataclass(frozen=True)
class Opposite(Objective):
    """The reverse KL with the wrong sign."""

    requires = ReverseKL.requires

    def advantage(self, batch):
        return batch.student_logprobs - batch.teacher_logprobs


def small_batch(teachers=("math", "math", "code", "code"), policy_version=0):
    """Return four rows with responses of one to four tokens after a prompt of one."""
    place = torch.arange(5)
    mask = (place >= 1) & (place < 1 + torch.tensor(LENGTHS)[:, None])
    signals = {name: torch.where(mask, torch.full((4, 5), -1.0), 0.0) for name in scored_batch().signals}
    signals["teacher_logprobs"] = signals["teacher_logprobs"] * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    signals |= {name: signals[name].abs() for name in ("student_entropy", "teacher_entropy")}
    batch = scored_batch(4, 5, teachers=teachers)
    return replace(batch, response_mask=mask, signals=signals, policy_version=policy_version)


def asked(method, *batches):
    recordings = [Recording(f"file{place}", batch) for place, batch in enumerate(batches)]
    return recordings, [method.targets(batch) for batch in batches]


def test_a_portrait_by_hand():
    portrait = portray(*asked(Method(LengthFilter(min_tokens=2), PlaceWeighter(), normalization="none"), small_batch()))
    assert portrait.keep_ratio == 0.75
    assert portrait.kept_tokens == 2 + 3 + 4
    assert sorted(portrait.weights.tolist()) == [1, 1, 1, 2, 2, 2, 3, 3, 4]
    assert portrait.effective_share == pytest.approx(19**2 / (9 * (5 + 14 + 30)))
    math_, code = portrait.by_teacher["math"], portrait.by_teacher["code"]
    assert (math_.kept, code.kept) == (0.5, 1.0)
    assert (math_.tokens, code.tokens) == pytest.approx((0.3, 0.7))
    assert (math_.weight, code.weight) == pytest.approx((3 / 19, 16 / 19))
    assert list(portrait.by_length) == ["1 to 1", "2 to 2", "3 to 3", "4 to 4"]
    assert [share.weight for share in portrait.by_length.values()] == pytest.approx([0, 3 / 19, 6 / 19, 10 / 19])


def test_several_files_are_pooled_and_stand_apart():
    batches = small_batch(), small_batch(("code",) * 4, policy_version=7)
    portrait = portray(*asked(Method(LengthFilter(min_tokens=3), UniformWeighter()), *batches))
    assert [point["policy_version"] for point in portrait.by_file] == [0, 7]
    assert [point["keep_ratio"] for point in portrait.by_file] == [0.5, 0.5]
    assert portrait.by_teacher["math"].tokens == pytest.approx(3 / 20)
    assert portrait.kept_tokens == 14


def test_a_method_that_keeps_nothing():
    keeps_nothing = asked(Method(LengthFilter(min_tokens=99)), small_batch())
    portrait = portray(*keeps_nothing)
    assert (portrait.keep_ratio, portrait.kept_tokens, portrait.effective_share) == (0, 0, 0)
    assert all(share.weight == 0 for share in portrait.by_teacher.values())
    (pair,) = agreements({"a": keeps_nothing[1], "b": keeps_nothing[1]})
    assert (pair.keep_overlap, pair.rank_correlation) == (1.0, None)


def test_agreement_is_jaccard_and_the_ranks_of_tokens_that_both_keep():
    short, place = LengthFilter(max_tokens=3), PlaceWeighter()
    answers = {
        "short": asked(Method(short, place), small_batch())[1],
        "long": asked(Method(LengthFilter(min_tokens=2), place), small_batch())[1],
        "uniform": asked(Method(KeepAll(), UniformWeighter()), small_batch())[1],
    }
    pairs = {(pair.first, pair.second): pair for pair in agreements(answers)}
    assert list(pairs) == [("short", "long"), ("short", "uniform"), ("long", "uniform")]
    assert pairs["short", "long"].keep_overlap == 0.5
    assert pairs["short", "long"].rank_correlation == pytest.approx(1)
    assert pairs["short", "uniform"].keep_overlap == 0.75
    assert pairs["short", "uniform"].rank_correlation is None


@pytest.mark.parametrize("lengths", [[5, 5, 5], [1], list(range(40)), [1, 1, 1, 9], [3, 1, 4, 1, 5, 9, 2, 6]])
def test_every_row_is_in_one_bucket_of_its_length(lengths):
    buckets = length_buckets(torch.tensor(lengths))
    assert torch.stack(list(buckets.values())).sum(0).tolist() == [1] * len(lengths)
    for name, rows in buckets.items():
        low, high = map(int, name.split(" to "))
        assert all(low <= length <= high for length, own in zip(lengths, rows.tolist(), strict=True) if own)


@pytest.fixture(scope="module")
def scorer():
    return CausalScorer(load_causal_lm("tiny/student", "student", "float32").eval())


def at_student(scorer, batch):
    """Return the batch as if this student had been recorded."""
    with torch.no_grad():
        logprobs = scorer(batch.tokens, batch.response_mask).logprobs
    return replace(batch, signals=batch.signals | {"student_logprobs": logprobs, "sampling_logprobs": logprobs})


def test_the_gradient_is_that_of_the_plain_loss(scorer):
    batch = at_student(scorer, scored_batch(6, 12))
    method = Method(LengthFilter(min_tokens=2), PlaceWeighter(), reduction="trajectory")
    targets = method.targets(batch)
    logits = scorer.model(input_ids=batch.tokens).logits.log_softmax(-1)
    chosen = logits[:, :-1].gather(-1, batch.tokens[:, 1:, None]).squeeze(-1)
    loss = 0.0
    for row in targets.keep.nonzero().flatten().tolist():
        own = [t for t in range(12) if batch.response_mask[row, t]]
        gain = sum(targets.weight[row, t] * targets.advantage[row, t] * chosen[row, t - 1] for t in own)
        loss = loss - gain / len(own) / int(targets.keep.sum())
    parameters = list(scorer.parameters())
    reference = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    for token_budget in (1000, 12):
        found = gradient(scorer, batch, targets, method, token_budget)
        torch.testing.assert_close(found, reference, atol=1e-6, rtol=1e-4)


def test_cosine_with_itself_is_1_with_the_opposite_minus_1_and_norms_are_compared(scorer):
    methods = {"opd": Method(), "same": Method(clip_ratio=0.5), "opposite": Method(objective=Opposite())}
    methods["half"] = Method(importance_cap=0.5)
    batch = at_student(scorer, scored_batch(6, 12))
    answers = {name: [method.targets(batch)] for name, method in methods.items()}
    found = alignments(scorer, [Recording("file", batch)], methods, answers, token_budget=64)
    pairs = {(pair.first, pair.second): (pair.cosine, pair.norm_ratio) for pair in found.pairs}
    assert pairs["opd", "same"] == pytest.approx((1, 1), abs=1e-5)
    assert pairs["opd", "opposite"] == pytest.approx((-1, 1), abs=1e-5)
    assert pairs["opd", "half"] == pytest.approx((1, 2), abs=1e-5)
    assert found.student_gap < 1e-5


def test_a_method_without_gradient_has_no_cosine_and_another_student_is_noticed(scorer):
    methods = {"opd": Method(), "nothing": Method(LengthFilter(min_tokens=99))}
    batch = scored_batch(6, 12)
    answers = {name: [method.targets(batch)] for name, method in methods.items()}
    found = alignments(scorer, [Recording("file", batch)], methods, answers, token_budget=64)
    assert (found.pairs[0].cosine, found.pairs[0].norm_ratio) == (None, None)
    assert found.student_gap > 0.1
    shares = loss_shares(answers["nothing"][0].mask, "token")
    assert fire_loss(batch.student_logprobs, batch.student_logprobs, answers["nothing"][0], shares, 0.2) == 0


OPD = "model: {trajectory_filter: KeepAll, token_weighter: UniformWeighter, objective: ReverseKL}\n"
FIRE = """
model:
  trajectory_filter: {class_path: TeacherLikelihoodFilter, init_args: {drop_fraction: 0.5}}
  token_weighter: EntropyWeighter
  gradient_clip: 3.0
trainer: {max_epochs: 2}
"""


@pytest.fixture
def compare(tmp_path, capsys):
    """Return a function that compares methods, given as texts by name, and returns what was printed."""

    def run(methods, *arguments, batch=None, code=0):
        write_scored(tmp_path / "a.safetensors", batch or small_batch())
        for name, text in methods.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        paths = [str(tmp_path / f"{name}.yaml") for name in methods]
        given = ["compare", str(tmp_path / "a.safetensors"), "--methods", *paths, "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) if code else nullcontext() as stop:
            main([*given, *arguments])
        assert stop is None or stop.value.code == code
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        return error if code else out

    return run


def test_the_command_writes_everything(compare, tmp_path, scorer):
    printed = compare({"opd": OPD, "fire": FIRE}, "--student", "tiny/student", batch=at_student(scorer, small_batch()))
    assert "fire: of no account on recorded rollouts: model.gradient_clip, trainer.max_epochs" in printed
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["methods"]["opd"]["keep_ratio"] == 1
    # Mean log-probabilities -1 to -4: half of the rows lie above the median.
    assert found["methods"]["fire"]["keep_ratio"] == 0.5
    assert sum(found["methods"]["opd"]["histogram"]["counts"]) == sum(LENGTHS)
    assert found["pairs"][0]["keep_overlap"] == 0.5
    assert 0 < found["gradients"]["pairs"][0]["cosine"] < 1
    assert "| opd | 1.000 | 10 |" in (tmp_path / "out" / "table.md").read_text()
    page = (tmp_path / "out" / "index.html").read_text()
    assert "http" not in page
    assert page.count("<svg") == len(list((tmp_path / "out" / "plots").glob("*.png"))) == 3


def test_the_page_does_not_depend_on_when_it_is_written(compare, tmp_path):
    pages = []
    for _ in range(2):
        compare({"opd": OPD, "fire": FIRE})
        pages.append((tmp_path / "out" / "index.html").read_text())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: {token_weigher: UniformWeighter}", ["x.yaml", "model.token_weigher is no setting of a run"]),
        ("trainr: {max_epochs: 1}\nmodel: {}", ["trainr.max_epochs is no setting of a run"]),
        ("model.token_weighter: UniformWeighter", ["holds no settings of a model"]),
        ("model: [", ["cannot be read as YAML"]),
        ("model: {token_weighter: UniformWeigher}", ["Did you mean UniformWeighter?", "the method x"]),
        (
            "model: {trajectory_filter: {class_path: TeacherLikelihoodFilter, init_args: {drop_fraction: 2}}}",
            ["[0, 1), got 2", "the method x"],
        ),
        ("model: {clip_ratio: -1}", ["clip_ratio", "greater than 0, got -1", "the method x"]),
    ],
)
def test_a_bad_method_is_named(compare, text, parts):
    error = compare({"opd": OPD, "x": text}, code=2)
    for part in parts:
        assert part in " ".join(error.split())


def test_a_signal_that_is_not_recorded_names_method_signal_file_and_remedy(compare, monkeypatch):
    monkeypatch.setattr(ReverseKL, "requires", frozenset({"base_logprobs"}))
    error = compare({"exopd": OPD}, code=2)
    assert "--methods: 'exopd': its strategies require 'base_logprobs'" in error
    assert "a.safetensors does not hold. Record that signal" in error


def test_importance_weights_to_a_truncated_distribution_are_refused(compare):
    batch = replace(small_batch(), sampling=Sampling(top_p=0.9))
    assert "importance_cap is 5.0" in compare({"opd": OPD}, batch=batch, code=2)
    assert "keep" in compare({"free": "model: {importance_cap: null}"}, batch=batch)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "configs/opd.yaml"], "either recorded files or a base configuration"),
        (["--", "--trainer.max_epochs=2"], "no run is started on recorded rollouts"),
    ],
)
def test_forms_are_not_mixed(compare, arguments, part):
    assert part in compare({"opd": OPD}, *arguments, code=2)


def test_without_matplotlib_the_extra_is_named_before_anything_is_read(compare, monkeypatch):
    monkeypatch.setattr("fireopd.commands.compare.find_spec", lambda name: None)
    assert "needs matplotlib, which is not installed. Install it: pip install 'fireopd[compare]'" in compare(
        {"opd": "["}, code=2
    )


def test_a_file_without_a_response_is_refused(compare):
    batch = small_batch()
    empty = replace(batch, response_mask=torch.zeros_like(batch.response_mask))
    assert "it holds no response token" in compare({"opd": OPD}, batch=empty, code=2)

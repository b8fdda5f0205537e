"""Numbers of a step: by teacher, by position, kept and dropped, against loops over tokens."""

from dataclasses import replace

import pytest
import torch
from helpers.fakes import full_batch, small_batch

from fireopd.filters import KeepAll, LengthFilter, TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.training.step_metrics import quarters, step_diagnostics
from fireopd.weighters import EntropyWeighter


def numbers(batch, method=None):
    targets = (method or Method(TeacherLikelihoodFilter(0.5), EntropyWeighter())).targets(batch)
    return step_diagnostics(batch, targets), targets


def tokens(batch, targets):
    """Yield row, column and quarter of each response token, by counting."""
    for row, mask in enumerate(batch.response_mask):
        columns = mask.nonzero().flatten().tolist()
        for place, column in enumerate(columns):
            yield row, column, next(q for q in range(4) if place < (q + 1) * len(columns) / 4)


def average(values):
    values = list(values)
    return pytest.approx(sum(values) / len(values), rel=1e-5)


def test_quarters_of_a_response():
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask[0, 1:9] = mask[1, 3:6] = mask[2, 4] = True
    assert quarters(mask)[0, 1:9].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert quarters(mask)[1, 3:6].tolist() == [0, 1, 2]
    assert quarters(mask)[2, 4] == 0
    assert quarters(mask).max() == 3
    assert quarters(mask).min() == 0


def test_curves_by_position_are_means_over_tokens():
    batch = full_batch(12, 20)
    found, targets = numbers(batch)
    for quarter in range(4):
        own = [(row, column) for row, column, q in tokens(batch, targets) if q == quarter]
        tag = f"position/quarter_{quarter + 1}"
        gap = batch.student_logprobs - batch.teacher_logprobs
        assert found[f"{tag}/kl"] == average(gap[at].item() for at in own)
        assert found[f"{tag}/entropy_student"] == average(batch.student_entropy[at].item() for at in own)
        assert found[f"{tag}/entropy_teacher"] == average(batch.teacher_entropy[at].item() for at in own)
        assert found[f"{tag}/weight"] == average(targets.weight[at].item() for at in own if targets.keep[at[0]])


def test_curves_of_a_teacher_are_those_of_its_rows_alone():
    batch = full_batch(12, 20)
    found, _ = numbers(batch, Method())
    alone, _ = numbers(batch.select([row for row, name in enumerate(batch.teachers) if name == "code"]), Method())
    for tag in ("rollout/length", "rollout/finished", "fire/weight_ess", "entropy/student", "entropy/teacher"):
        assert found[f"{tag}/code"] == pytest.approx(alone[tag], rel=1e-5)
    assert found["kl/code"] == pytest.approx(alone["train/reverse_kl"], rel=1e-5)
    assert found["kl_response/code"] == pytest.approx(alone["kl/code"] * alone["rollout/length"], rel=1e-5)


def test_kept_and_dropped_are_told_apart():
    batch = small_batch()
    batch = replace(batch, signals=batch.signals | {"rewards": torch.tensor([1.0, 0.0, 0.5, 0.0])})
    found, _ = numbers(batch, Method(LengthFilter(max_tokens=2)))
    assert (found["rollout/length_kept"], found["rollout/length_dropped"]) == (1.5, 3.5)
    assert (found["rollout/reward_kept"], found["rollout/reward_dropped"]) == (0.5, 0.25)
    assert found["rollout/reward"] == 0.375
    everything, _ = numbers(batch, Method(KeepAll()))
    assert "rollout/reward_dropped" not in everything
    assert "rollout/length_dropped" not in everything


def test_one_token_a_row_and_nothing_kept():
    batch = full_batch(3, 4)
    found, _ = numbers(batch, Method(LengthFilter(min_tokens=99)))
    assert not any(tag.endswith("/weight") for tag in found)
    assert found["fire/keep_ratio"] == 0
    assert all(value == value for value in found.values()), "no NaN"
    lonely = small_batch().select([0])
    assert {tag for tag in numbers(lonely)[0] if tag.startswith("position")} == {
        f"position/quarter_1/{measure}" for measure in ("kl", "weight", "entropy_student", "entropy_teacher")
    }

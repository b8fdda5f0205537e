"""DN-MOPD and OPSA against references in Python loops."""

from statistics import pstdev

import pytest
import torch
from helpers.fakes import full_batch
from helpers.small_vocabulary import with_signals

from fireopd.objectives import EntropyRankedPenalty, ReverseKL, TeacherScaledReverseKL


@pytest.mark.parametrize("limits", [(0.25, 4.0), (0.9, 1.1)])
def test_each_teacher_has_the_spread_of_the_batch(limits):
    batch = full_batch(dtype=torch.float64)
    wide = torch.tensor([3.0 if name == "code" else 0.5 for name in batch.teachers])[:, None]
    batch = with_signals(batch, teacher_logprobs=batch.teacher_logprobs * wide)
    sampled, mask = batch.teacher_logprobs - batch.sampling_logprobs, batch.response_mask

    def spread(names):
        rows = [row for row, name in enumerate(batch.teachers) if name in names]
        return pstdev(x for row in rows for x in sampled[row][mask[row]].tolist())

    found, plain = TeacherScaledReverseKL(*limits).advantage(batch), ReverseKL().advantage(batch)
    for row, name in enumerate(batch.teachers):
        factor = min(max(spread(set(batch.teachers)) / spread({name}), limits[0]), limits[1])
        assert found[row].tolist() == pytest.approx((factor * plain[row]).tolist())
    ratio = (found / plain)[mask]
    assert ratio.min() < 0.95 < 1.05 < ratio.max()


def test_a_teacher_without_spread_keeps_its_log_ratios():
    batch = full_batch()
    equal = torch.where(torch.tensor([name == "code" for name in batch.teachers])[:, None], 1.0, 0.0)
    batch = with_signals(
        batch, teacher_logprobs=torch.where(equal > 0, batch.sampling_logprobs - 1, batch.teacher_logprobs)
    )
    found, plain = TeacherScaledReverseKL().advantage(batch), ReverseKL().advantage(batch)
    assert torch.equal(found[1::2], plain[1::2])


@pytest.mark.parametrize("share", [0.01, 0.4, 1.0])
def test_the_penalty_grows_with_the_entropy_of_the_selected_tokens(share):
    batch = full_batch(dtype=torch.float64)
    places = batch.response_mask.nonzero().tolist()
    ranked = sorted(places, key=lambda place: batch.student_logprobs[tuple(place)].item())
    chosen = ranked[: max(1, int(share * len(places)))]
    entropies = [batch.student_entropy[tuple(place)].item() for place in chosen]
    low, high = min(entropies), max(entropies)
    found = EntropyRankedPenalty(share, smallest=0.5, largest=2.0).advantage(batch)
    for place, entropy in zip(chosen, entropies, strict=True):
        relative = (entropy - low) / (high - low) if high > low else 1.0
        assert found[tuple(place)].item() == pytest.approx(-(0.5 + 1.5 * relative))
    assert int((found < 0).sum()) == len(chosen)

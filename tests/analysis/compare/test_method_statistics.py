"""Statistics of methods on recorded rollouts, with values computed by hand."""

from dataclasses import dataclass

import pytest
import torch
from helpers.fakes import small_batch

from fireopd.analysis.compare.method_statistics import Recording, agreements, compute_statistics, length_buckets
from fireopd.filters import KeepAll, LengthFilter
from fireopd.method import Method
from fireopd.weighters import TokenWeighter, UniformWeighter


@dataclass(frozen=True)
class PlaceWeighter(TokenWeighter):
    """Weighs the tokens of a row 1, 2, 3 ..."""

    def __call__(self, batch):
        return batch.response_mask.float().cumsum(-1)


def asked(method, *batches):
    recordings = [Recording(f"file{place}", batch) for place, batch in enumerate(batches)]
    return recordings, [method.targets(batch) for batch in batches]


def test_a_portrait_by_hand():
    own = compute_statistics(
        *asked(Method(LengthFilter(min_tokens=2), PlaceWeighter(), normalization="none"), small_batch())
    )
    assert own.keep_ratio == 0.75
    assert own.kept_tokens == 2 + 3 + 4
    assert sorted(own.weights.tolist()) == [1, 1, 1, 2, 2, 2, 3, 3, 4]
    assert own.effective_share == pytest.approx(19**2 / (9 * (5 + 14 + 30)))
    math_, code = own.by_teacher["math"], own.by_teacher["code"]
    assert (math_.kept, code.kept) == (0.5, 1.0)
    assert (math_.tokens, code.tokens) == pytest.approx((0.3, 0.7))
    assert (math_.weight, code.weight) == pytest.approx((3 / 19, 16 / 19))
    assert list(own.by_length) == ["1 to 1", "2 to 2", "3 to 3", "4 to 4"]
    assert [share.weight for share in own.by_length.values()] == pytest.approx([0, 3 / 19, 6 / 19, 10 / 19])


def test_several_files_are_pooled_and_stand_apart():
    batches = small_batch(), small_batch(("code",) * 4, policy_version=7)
    own = compute_statistics(*asked(Method(LengthFilter(min_tokens=3), UniformWeighter()), *batches))
    assert [point["policy_version"] for point in own.by_file] == [0, 7]
    assert [point["keep_ratio"] for point in own.by_file] == [0.5, 0.5]
    assert own.by_teacher["math"].tokens == pytest.approx(3 / 20)
    assert own.kept_tokens == 14


def test_a_method_that_keeps_nothing():
    keeps_nothing = asked(Method(LengthFilter(min_tokens=99)), small_batch())
    own = compute_statistics(*keeps_nothing)
    assert (own.keep_ratio, own.kept_tokens, own.effective_share) == (0, 0, 0)
    assert all(share.weight == 0 for share in own.by_teacher.values())
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

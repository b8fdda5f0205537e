"""Files of scored rollouts: round trip, and errors for invalid files."""

import json
from dataclasses import replace

import pytest
import torch
from helpers.fakes import full_batch, scored_batch
from helpers.fuzzing import FUZZED
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.objectives import SignGatedKL
from fireopd.training.recordings import read_scored, recorded_student, write_scored, write_targets
from fireopd.types import Sampling, Source
from fireopd.types.signals import SIGNALS


def test_round_trip(tmp_path):
    batch = full_batch()
    sources = torch.where(batch.response_mask, Source.STUDENT, Source.PROMPT).byte()
    sources[0] *= Source.TEACHER  # the student is 1
    batch = replace(batch, sampling=Sampling(0.7, 0.9, 40), sources=sources)
    assert batch.signals.keys() == SIGNALS.keys()
    write_scored(tmp_path / "a.safetensors", batch)
    again = read_scored(tmp_path / "a.safetensors")
    for name in ("tokens", "response_mask", "groups", "finished", "sources"):
        assert torch.equal(getattr(again, name), getattr(batch, name))
    assert again.teachers == batch.teachers
    assert again.sampling == batch.sampling
    assert again.signals.keys() == batch.signals.keys()
    assert all(torch.equal(again.signals[name], value) for name, value in batch.signals.items())
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"], "nothing half-written is left"


def test_student_and_tasks_are_kept_and_may_be_missing(tmp_path):
    batch = scored_batch()
    write_scored(tmp_path / "bare", batch)
    assert recorded_student(tmp_path / "bare") is None
    assert read_scored(tmp_path / "bare").tasks == ()
    tasks = ("sums", "words") * 3
    write_scored(tmp_path / "full", replace(batch, tasks=tasks), "tiny/student")
    assert recorded_student(tmp_path / "full") == "tiny/student"
    assert read_scored(tmp_path / "full").tasks == tasks
    (tmp_path / "no file").write_text("?")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        recorded_student(tmp_path / "no file")


def test_targets_are_what_the_format_promises(tmp_path):
    batch = scored_batch()
    write_targets(tmp_path / "t.safetensors", Method().targets(batch))
    tensors = load_file(tmp_path / "t.safetensors")
    kinds = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    assert kinds == {
        "keep": (torch.uint8, (6,)),
        "mask": (torch.uint8, (6, 9)),
        "weight": (torch.float32, (6, 9)),
        "advantage": (torch.float32, (6, 9)),
    }


def test_a_direct_objective_adds_its_coefficients(tmp_path):
    targets = Method(objective=SignGatedKL()).targets(scored_batch())
    write_targets(tmp_path / "t.safetensors", targets)
    assert torch.equal(load_file(tmp_path / "t.safetensors")["coefficient"], targets.coefficient)


def tensors_and_metadata(tmp_path):
    path = tmp_path / "good.safetensors"
    write_scored(path, scored_batch())
    return load_file(path), {"format": "fireopd.scored/1", "teachers": json.dumps(["math"] * 6)}


def planted(values, value):
    """Put a value at a response token of the third row."""
    place = int(scored_batch().response_mask[2].int().argmax())
    values[2, place] = value
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.pop("teacher_entropy"), "the tensor 'teacher_entropy' is missing"),
        (
            lambda t, m: t.update(student_entropy=t["student_entropy"][:, :4].clone()),
            r"'student_entropy' has the shape \[6, 4\]",
        ),
        (lambda t, m: t.update(rewards=torch.zeros(5)), r"'rewards' has the shape \[5\], expected \[6\]"),
        (lambda t, m: t.update(tokens=t["tokens"][0].clone()), r"'tokens' has the shape \[9\], expected \[N, L\]"),
        (
            lambda t, m: t.update(teacher_logprobs=planted(t["teacher_logprobs"], torch.nan)),
            r"'teacher_logprobs' is NaN at \[2, \d\]",
        ),
        (lambda t, m: t.update(teacher_logprobs=t["tokens"].clone()), "'teacher_logprobs' holds torch.int64"),
        (lambda t, m: m.update(format="other/1"), "its format is 'other/1', not 'fireopd.scored/1'"),
        (lambda t, m: m.pop("format"), "its format is None"),
        (lambda t, m: m.update(teachers='["math"]'), "not a JSON list of 6 names"),
        (lambda t, m: m.update(teachers="math"), "not a JSON list of 6 names"),
        (lambda t, m: m.update(tasks='["sums"]'), "'tasks' is not a JSON list of 6 names"),
        (lambda t, m: t.update(tokens=t["tokens"].float()), "'tokens' holds torch.float32, expected int64"),
        (lambda t, m: t.update(tokens=planted(t["tokens"], -1)), r"'tokens' is -1 at \[2, \d\], expected 0 to"),
        (lambda t, m: t.update(tokens=planted(t["tokens"], 2**40)), r"'tokens' is 1099511627776 at \[2, \d\]"),
        (lambda t, m: t.update(response_mask=t["response_mask"].float()), "'response_mask' holds torch.float32"),
        (lambda t, m: t.update(response_mask=t["response_mask"] * 2), r"'response_mask' is 2 at \[0, \d\]"),
        (lambda t, m: t.update(finished=torch.full((6,), 0.5)), "'finished' holds torch.float32"),
        (lambda t, m: t.update(group=torch.zeros(6)), "'group' holds torch.float32"),
        (lambda t, m: t.update({name: x[:0].clone() for name, x in t.items()}), r"'tokens' has the shape \[0, 9\]"),
        (lambda t, m: t.update(tokens=t["tokens"][:, :0].clone()), r"'tokens' has the shape \[6, 0\]"),
        (lambda t, m: m.update(policy_version="three"), "'policy_version' is three, not an integer"),
        (lambda t, m: m.update(policy_version="1" * 5000), "'policy_version' is 1"),
        (lambda t, m: m.update(teachers="[" * 100_000), "not a JSON list of 6 names"),
        (lambda t, m: m.update(teachers=json.dumps([["math"]] * 6)), "not a JSON list of 6 names"),
        (lambda t, m: m.update(teachers=json.dumps(["\ud800"] * 6)), "not a JSON list of 6 names"),
        (lambda t, m: m.update(sampling='{"temperature": "hot"}'), "'sampling' is not JSON of temperature"),
        (lambda t, m: m.update(sampling='{"temperature": NaN}'), "'sampling' is not JSON of temperature"),
        (lambda t, m: m.update(sampling='{"top_p": 0}'), "'sampling' is not JSON of temperature"),
        (lambda t, m: m.update(sampling='{"top_k": true}'), "'sampling' is not JSON of temperature"),
        (lambda t, m: m.update(sampling="[]"), "'sampling' is not JSON of temperature"),
        (lambda t, m: m.update(sampling="hot"), "'sampling' is not JSON of temperature, top_p and top_k"),
        (lambda t, m: m.update(sampling='{"top_q": 1}'), "'sampling' is not JSON of temperature, top_p and top_k"),
    ],
)
def test_a_wrong_file_is_refused_with_what_and_where(tmp_path, change, message):
    tensors, metadata = tensors_and_metadata(tmp_path)
    change(tensors, metadata)
    save_file(tensors, tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(UserError, match=message):
        read_scored(tmp_path / "bad.safetensors")


DTYPES = (torch.float16, torch.float64, torch.bool, torch.int8, torch.uint16, torch.int32, torch.complex64)
SHAPES = ((6, 9), (0, 9), (6, 0), (0,), (6,), (), (6, 9, 1), (9, 6))
NAMES = (*SIGNALS, "tokens", "response_mask", "group", "finished", "other")
TENSORS = st.builds(
    lambda dtype, shape, value: torch.full(shape, value, dtype=torch.float64).to(dtype),
    st.sampled_from(DTYPES),
    st.sampled_from(SHAPES),
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 1e300, float("nan"), float("inf")]),
)
TEXTS = st.sampled_from(
    ["", "{}", "[]", "3", "-1", "1e9", "null", "nan", "NaN", "[" * 5000, "9" * 5000, "\0", '["a"]', "٣"]
)
CHANGES = st.dictionaries(st.sampled_from(NAMES), TENSORS, max_size=2)
KEYS = ("format", "teachers", "tasks", "policy_version", "sampling", "student")


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return folder / "fuzzed.safetensors", *tensors_and_metadata(folder)


def read_or_refused(path):
    """Check that a file is refused with one message, or that what was read is valid."""
    try:
        batch, message = read_scored(path), None
    except UserError as error:
        batch, message = None, str(error)
    if batch is None:
        assert str(path) in message
        assert message.isprintable()
        return
    assert batch.tokens.dtype == torch.int64
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < 2**31
    assert not any(signal.isnan().any() for signal in batch.signals.values())


@FUZZED
@given(
    CHANGES,
    st.dictionaries(st.sampled_from(KEYS), TEXTS, max_size=2),
)
def test_any_tensors_and_metadata_are_valid_or_refused(valid, tensors, texts):
    path, good, metadata = valid
    save_file(good | tensors, path, metadata=metadata | texts)
    read_or_refused(path)


@FUZZED
@given(st.integers(0, 10**6), st.one_of(st.none(), st.binary(min_size=1, max_size=8)))
def test_any_damage_of_a_file_is_harmless_or_refused(valid, place, damage):
    """A file is cut at a place, or a few bytes are replaced there."""
    path, good, metadata = valid
    save_file(good, path, metadata=metadata)
    content = path.read_bytes()
    place %= len(content) if place % 2 else 1200  # half of the places are in the header
    path.write_bytes(content[:place] if damage is None else content[:place] + damage + content[place + len(damage) :])
    read_or_refused(path)


def test_garbage_off_the_mask_is_not_looked_at(tmp_path):
    tensors, metadata = tensors_and_metadata(tmp_path)
    off = ~tensors["response_mask"].bool()
    tensors["teacher_logprobs"][off] = torch.nan
    save_file(tensors, tmp_path / "garbage.safetensors", metadata=metadata)
    assert torch.equal(read_scored(tmp_path / "garbage.safetensors").teacher_logprobs, scored_batch().teacher_logprobs)


def test_a_file_that_is_no_safetensors(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"pickle" * 9)
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        read_scored(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        read_scored(tmp_path / "nowhere.safetensors")


def test_a_file_that_is_a_pickle_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "mark"), "w"))

    torch.save({"tokens": Evil()}, tmp_path / "rollouts.safetensors")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        read_scored(tmp_path / "rollouts.safetensors")
    assert not (tmp_path / "mark").exists()

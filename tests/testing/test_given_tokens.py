"""Given tokens between the turns of a student, such as the output of a tool: they never matter for its own tokens."""

from dataclasses import replace

import pytest
import torch
from helpers.built_in_strategies import BUILT_IN, EXAMPLES

from fireopd.analysis.view import View
from fireopd.analysis.view.quantities import token_values
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.testing.example_batches import VOCABULARY, example_batch
from fireopd.training.recordings import read_scored, write_scored
from fireopd.training.step_metrics import step_diagnostics
from fireopd.types import Source
from fireopd.types.signals import PER_TRAJECTORY
from fireopd.weighters import EntropyWeighter

GAP = 3


def with_gaps(batch, token):
    """Return the batch with given tokens in the middle of each response, and the new place of each old column."""
    rows, width = batch.tokens.shape
    start = batch.response_mask.int().argmax(-1)
    cut = start + (batch.lengths // 2).clamp(min=1)
    columns = torch.arange(width).expand(rows, width)
    places = columns + GAP * (columns >= cut[:, None])

    def moved(values, fill):
        return values.new_full((rows, width + GAP), fill).scatter(1, places, values)

    given = moved(torch.ones_like(batch.response_mask), False).logical_not()
    mask = moved(batch.response_mask, False)
    signals = {name: value if name in PER_TRAJECTORY else moved(value, 0.0) for name, value in batch.signals.items()}
    sources = torch.where(given, Source.GIVEN, mask * int(Source.STUDENT)).to(torch.uint8)
    tokens = moved(batch.tokens, token)
    return replace(batch, tokens=tokens, response_mask=mask, signals=signals, sources=sources), places


def call(strategy, batch):
    view = replace(batch, strategy=strategy)
    if hasattr(strategy, "advantage"):
        return strategy.advantage(view)
    return strategy.coefficient(view) if hasattr(strategy, "coefficient") else strategy(view)


@pytest.mark.parametrize("plugin", BUILT_IN, ids=lambda plugin: plugin.strategy.__name__)
def test_given_tokens_change_no_answer_of_a_strategy(plugin):
    name = plugin.strategy.__name__
    strategy = EXAMPLES[name] if name in EXAMPLES else plugin.strategy()
    for version in (0, 300):
        batch = example_batch(seed=version, policy_version=version)
        expected = call(strategy, batch)
        for token in (0, VOCABULARY - 1):
            gapped, places = with_gaps(batch, token)
            answer = call(strategy, gapped)
            if answer.dim() == 2:
                answer = answer.gather(1, places)
                answer, expected = answer[batch.response_mask], call(strategy, batch)[batch.response_mask]
            torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def gapped():
    batch = example_batch(seed=3)
    return (batch, *with_gaps(batch, VOCABULARY - 1))


def test_given_tokens_change_no_target_metric_or_value_of_a_page(gapped):
    batch, other, places = gapped
    method = Method(TeacherLikelihoodFilter(0.4), EntropyWeighter())
    expected, found = method.targets(batch), method.targets(other)
    assert torch.equal(found.keep, expected.keep)
    for name in ("weight", "advantage", "importance", "mask"):
        assert torch.equal(getattr(found, name).gather(1, places), getattr(expected, name)), name
        assert getattr(found, name).count_nonzero() == getattr(expected, name).count_nonzero(), "nothing in the gaps"
    before, after = (step_diagnostics(b, t) for b, t in ((batch, expected), (other, found)))
    assert {name: value for name, value in after.items() if name != "rollout/teacher_share"} == pytest.approx(before)
    assert after["rollout/teacher_share"] == 0
    assert (other.lengths.tolist(), method.reasons(other)) == (batch.lengths.tolist(), method.reasons(batch))
    shown, values = token_values(batch, expected), token_values(other, found)
    for name, quantity in shown.items():
        torch.testing.assert_close(values[name].gather(1, places), quantity, equal_nan=True)


def test_recordings_and_views_keep_the_gaps(gapped, tmp_path):
    _, batch, _ = gapped
    file = tmp_path / "a.safetensors"
    write_scored(file, batch, "tiny/student")
    read = read_scored(file)
    assert torch.equal(read.sources, batch.sources)
    assert torch.equal(read.response_mask, batch.response_mask)
    assert torch.equal(read.tokens_by(Source.STUDENT), batch.response_mask)
    method = Method()
    view = View(read, method.targets(read), method.reasons(read))
    (row,) = view.describe([0], Spelling())
    assert len(row["tokens"]) == len(row["values"]["weight"]) == read.lengths[0], "tokens of the response only"


class Spelling:
    """Tokenizer whose tokens are letters."""

    def decode(self, tokens, **_):
        return "".join(chr(65 + token) for token in tokens)

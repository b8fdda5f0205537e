"""Mixtures of prompt sources: weights, order, names, verifiers."""

from collections import Counter

import pytest
from helpers.fakes import ScriptedEngine

from fireopd.errors import UserError
from fireopd.prompts import JSONLPrompts, MixedPrompts, PromptSource, PromptText, TinyPrompts
from fireopd.training.data import RolloutDataModule
from fireopd.types import Prompt
from fireopd.verifiers import FinalAnswer


def tiny(task, number, **settings):
    return TinyPrompts({task: task}, num_training=number, num_validation=2, **settings)


def prompts(**numbers):
    """Return tokenized prompts of sources of given sizes, numbered in each."""
    rows = [(name, row) for name, number in numbers.items() for row in range(number)]
    return [Prompt((), "t", "t", None, f"{name}/{row}", source=name) for name, row in rows]


def mixture(weights=None, **numbers):
    return MixedPrompts({name: tiny("math", 1) for name in numbers}, weights)


def epochs(weights, number, seed=0, **numbers):
    """Return the ids of some epochs."""
    given = prompts(**numbers)
    mixed = mixture(weights, **numbers)
    return [[given[row].id for row in mixed.order(given, seed, epoch)] for epoch in range(number)]


def test_an_epoch_ends_when_the_first_source_is_exhausted():
    for epoch in epochs({"a": 3, "b": 1}, 4, a=10, b=100):
        assert Counter(row[0] for row in epoch) == {"a": 10, "b": 3}
        assert len(set(epoch)) == 13
    (epoch,) = epochs(None, 1, a=10, b=100)
    assert len(set(epoch)) == 110, "without weights an epoch has all"


def test_a_source_goes_on_where_it_stopped_and_comes_round_whole():
    drawn = [{row for row in epoch if row[0] == "b"} for epoch in epochs({"a": 1, "b": 1}, 10, a=4, b=10)]
    assert all(len(rows) == 4 for rows in drawn)
    assert not drawn[0] & drawn[1], "8 of 10 rows"
    assert len(drawn[0] | drawn[1] | drawn[2]) == 10, "12 of 10 rows"
    for five in (drawn[:5], drawn[5:]):
        assert Counter(row for rows in five for row in rows) == {f"b/{row}": 2 for row in range(10)}


def test_the_shares_hold_in_every_stretch_of_an_epoch():
    (epoch,) = epochs({"a": 3, "b": 1}, 1, a=300, b=1000)
    for start in range(0, 400, 20):
        share = Counter(row[0] for row in epoch[start : start + 20])
        assert 13 <= share["a"] <= 17, "15 of 20, with a jitter of two at most"


def test_the_order_is_that_of_the_seed_and_anew_in_each_epoch():
    first, second = (epochs({"a": 1, "b": 2}, 2, seed=seed, a=20, b=40) for seed in (1, 1))
    assert first == second
    assert first[0] != first[1]
    assert epochs({"a": 1, "b": 2}, 1, seed=2, a=20, b=40)[0] != first[0]


def test_sources_of_one_size_are_not_shuffled_alike():
    (epoch,) = epochs({"a": 1, "b": 1, "c": 1}, 1, a=30, b=30, c=10)
    a, b = ([row[2:] for row in epoch if row[0] == name] for name in "ab")
    assert len(a) == len(b) == 10
    assert set(a) != set(b)


@pytest.mark.parametrize("weights", [{"a": 0.1, "b": 0.2}, {"a": 0.7, "b": 1.4}, {"a": 1e6, "b": 2e6}])
def test_only_the_ratio_of_weights_counts(weights):
    assert Counter(row[0] for row in epochs(weights, 1, a=7, b=1000)[0]) == {"a": 7, "b": 14}


def test_a_source_that_gives_nothing_is_named():
    with pytest.raises(UserError, match=r"data.prompts.sources.b: .*no training prompts"):
        mixture(a=1, b=1).order(prompts(a=3), 0, 0)
    with pytest.raises(UserError, match=r"less than one of this source\. Raise the weight of b"):
        epochs({"a": 100, "b": 1}, 1, a=10, b=10)


@pytest.mark.parametrize(
    ("sources", "weights", "message"),
    [
        ({}, None, "sources must not be empty"),
        ({"a": mixture(a=1)}, None, "sources must not be mixtures"),
        ({"a": tiny("math", 1)}, {"b": 1}, "weights must name the sources a, got {'b': 1}"),
        ({"a": tiny("math", 1)}, {"a": 0}, "weights must be greater than 0, got {'a': 0}"),
        ({"a": tiny("math", 1)}, {"a": float("nan")}, "weights must be greater than 0"),
    ],
)
def test_what_a_mixture_refuses(sources, weights, message):
    with pytest.raises(ValueError, match=message):
        MixedPrompts(sources, weights)


def test_an_error_names_the_setting_in_the_mixture(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"problem": "a"}')
    mixed = MixedPrompts({"math": tiny("math", 1), "mine": JSONLPrompts(tmp_path / "rows.jsonl")})
    with pytest.raises(UserError) as caught:
        mixed.training(0)
    assert caught.value.key == "data.prompts.sources.mine.train"
    assert caught.value.remedy == 'add "teacher" to the row, or set data.prompts.sources.mine.teacher'


def data_module(source, engine, **settings):
    data = RolloutDataModule(prompts=source, engine=engine, validation_responses=2, **settings)
    data.setup("fit")
    return data


def test_each_prompt_is_graded_by_its_own_verifier():
    """The grade is the verifier that was called: both would find the responses of the scripted engine incorrect."""
    asked = []

    class Recording(FinalAnswer):
        def __call__(self, prompt, response):
            asked.append((self.marker, prompt.task))
            return 1.0 if self.marker == "one" else 0.0

    sources = {"a": tiny("math", 4, verifier=Recording("one")), "b": tiny("code", 4, verifier=Recording("two"))}
    data = data_module(MixedPrompts(sources), ScriptedEngine(), batch_size=4)
    (batch,) = data.val_dataloader()[0]
    assert sorted(set(asked)) == [("one", "math"), ("two", "code")]
    assert batch.rewards.tolist() == [1.0 if task == "math" else 0.0 for task in batch.tasks]


def test_the_same_prompts_may_go_to_two_teachers_and_every_batch_has_both():
    sources = {name: TinyPrompts({"math": name}, num_training=number) for name, number in {"a": 20, "b": 60}.items()}
    data = data_module(MixedPrompts(sources, {"a": 1, "b": 1}), ScriptedEngine(), batch_size=8)
    loader = data.train_dataloader()
    assert len(loader) == 5
    batches = list(loader)
    assert all(3 <= batch.teachers.count("a") <= 5 for batch in batches)
    assert len({prompt.id for batch in batches for prompt in batch.prompts}) == 40
    seen = {prompt.id for batch in batches for prompt in batch.prompts}
    again = {prompt.id for batch in loader for prompt in batch.prompts}
    assert len({name for name in seen | again if name.startswith("b/")}) == 40, "the next epoch has the others"


def test_a_mixture_goes_on_from_a_checkpoint_with_the_next_batch():
    sources = {"a": tiny("math", 8), "b": tiny("code", 20)}
    mixed = MixedPrompts(sources, {"a": 1, "b": 1})
    whole, other = (data_module(mixed, ScriptedEngine(), batch_size=4).train_dataloader() for _ in range(2))
    ids = [[p.id for p in batch.prompts] for _ in range(2) for batch in whole]
    other.load_state_dict({"position": 5})
    assert [[p.id for p in batch.prompts] for batch in other] == ids[5:]


def test_verifiers_by_the_name_of_the_source():
    class Ungraded(PromptSource):
        def training(self, seed):
            return [PromptText("1;+1", "t", "t", None, "0")]

        def validation(self):
            return []

    assert Ungraded().verifiers == {}
    mixed = MixedPrompts({"a": tiny("math", 1, verifier=FinalAnswer("=")), "b": Ungraded()})
    assert mixed.verifiers == {"a": FinalAnswer("=")}
    assert [text.source for text in mixed.training(0)] == ["a", "b"]

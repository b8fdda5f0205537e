"""The data module: order, freshness, validation, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from helpers.fakes import ScriptedEngine
from helpers.processes import in_two_processes

from fireopd.engines import HFEngine, VLLMEngine
from fireopd.errors import UserError
from fireopd.models.loading import encode_chats
from fireopd.prompts import Columns, JSONLPrompts, TinyPrompts, fingerprint
from fireopd.training.data import RolloutDataModule
from fireopd.training.run_warnings import data_warnings


def make(engine=None, **settings):
    defaults = {"prompts": TinyPrompts(num_training=20, num_validation=3), "batch_size": 8, "seed": 1}
    data = RolloutDataModule(engine=engine or ScriptedEngine(), **(defaults | settings))
    data.setup("fit")
    return data


class Unprintable:
    """An object whose text is its address."""


def test_details_have_one_fingerprint_in_all_processes():
    """Sets of text are ordered by the hashes of the process."""
    plain = [fingerprint._plain(value) for value in ({"b", "a"}, frozenset({"b", "a"}), Unprintable(), Path("x"))]
    assert plain == [["a", "b"], ["a", "b"], "Unprintable", "x"]


def prompts_by_rank(rank, folder):
    """Load equal prompts, then prompts that differ in the training set or the validation set of one process."""
    settings = {"num_training": 20, "num_validation": 3}
    make(prompts=TinyPrompts(**settings), batch_size=2)
    messages = []
    for name in settings:
        with pytest.raises(UserError) as refused:
            make(prompts=TinyPrompts(**settings | {name: settings[name] + rank}), batch_size=2)
        messages.append(str(refused.value))
    (folder / str(rank)).write_text("\n".join(messages))


def test_processes_with_different_prompts_are_refused(tmp_path):
    in_two_processes(prompts_by_rank, tmp_path)
    for rank in range(2):
        for message in (tmp_path / str(rank)).read_text().splitlines():
            assert message.startswith("data.prompts: 'TinyPrompts': processes have different prompts. Give all nodes")


def test_the_traceback_of_a_source_names_it():
    class Failing(TinyPrompts):
        def training(self, seed):
            raise FileNotFoundError("train.txt")

    with pytest.raises(FileNotFoundError) as failure:
        make(prompts=Failing())
    assert failure.value.__notes__ == ["fireopd: data.prompts: Failing returns its training prompts."]


def test_the_training_loader_has_a_length_and_rolls_out_only_when_asked():
    data = make()
    loader = data.train_dataloader()
    assert len(loader) == 2, "20 prompts in batches of 8, the last one not full"
    batches = iter(loader)
    assert data.engine.events == []
    next(batches)
    data.engine.policy_version = 7
    assert next(batches).policy_version == 7
    assert data.engine.events == ["generate -1", "generate 7"]


def test_validation_prompts_without_an_answer_are_counted_in_a_warning(tmp_path):
    (tmp_path / "train").write_text('{"problem": "a"}\n')
    rows = [{"problem": "1", "answer": "1"}, {"problem": "2"}, {"problem": "3", "answer": ""}]
    (tmp_path / "val").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = make(prompts=JSONLPrompts(tmp_path / "train", tmp_path / "val", teacher="x"), batch_size=1)
    (warning,) = data_warnings(data.plan())
    assert "2 of 3 validation prompts have no answer" in warning
    assert "val:2" in warning


def test_training_prompts_that_are_validation_prompts_are_counted_in_a_warning(tmp_path):
    for name, problems in {"train": ["a", "b", "b", "c"], "val": ["b", "d"], "other": ["d"]}.items():
        rows = [{"problem": text, "answer": "1"} for text in problems]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = make(prompts=JSONLPrompts(tmp_path / "train", tmp_path / "other", teacher="x"), batch_size=2)
    assert data_warnings(data.plan()) == data_warnings(make().plan()) == []
    data = make(prompts=JSONLPrompts(tmp_path / "train", tmp_path / "val", teacher="x"), batch_size=2)
    assert data_warnings(data.plan()) == ["2 of 4 training prompts also occur in the validation set"]


def test_an_epoch_uses_each_prompt_once_and_the_next_one_shuffles_anew():
    data = make(batch_size=10)
    loader = data.train_dataloader()
    epochs = [[tuple(row.tolist()) for batch in loader for row in batch.tokens] for _ in range(2)]
    assert len(set(epochs[0])) == 20
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]


def test_a_loaded_state_continues_with_the_next_batch():
    whole = make()
    expected = [batch.tokens for batch in whole.train_dataloader()]
    first, second = make().train_dataloader(), make().train_dataloader()
    first.mark_learned(next(iter(first)).number)
    second.load_state_dict(first.state_dict())
    rest = [batch.tokens for batch in second]
    assert len(rest) == 1
    assert torch.equal(rest[0], expected[1])


def test_a_rollout_that_fails_comes_again():
    expected = [batch.tokens for batch in make().train_dataloader()]

    class Failing(ScriptedEngine):
        fails = True

        def generate(self, prompts, seeds):
            if self.fails:
                raise ConnectionError
            return super().generate(prompts, seeds)

    loader = make(engine=Failing()).train_dataloader()
    with pytest.raises(ConnectionError):
        next(iter(loader))
    assert loader.state_dict() == {"position": 0}
    loader.engine.fails = False
    assert torch.equal(next(iter(loader)).tokens, expected[0])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_rank_validates_in_as_many_batches_and_no_prompt_is_left_out(ranks):
    """An engine that ranks share needs all of them to call it; 5 prompts in twos leave some with empty batches."""
    data = make(validation_batch_size=2, prompts=TinyPrompts({"math": "math"}, num_training=20, num_validation=5))
    parts = []
    for rank in range(ranks):
        loader = data.val_dataloader()[0]
        loader.rank, loader.ranks, loader.own = rank, ranks, loader.prompts[rank::ranks]
        parts.append(list(loader))
        assert len(parts[rank]) == len(loader) == {1: 3, 2: 2, 4: 1}[ranks]
    seen = [prompt.id for part in parts for batch in part for prompt in batch.prompts]
    assert sorted(set(seen)) == sorted(prompt.id for prompt in data.validation_prompts)
    assert len(seen) == 5 * data.validation_responses
    empty = [batch for part in parts for batch in part if not batch.prompts]
    assert all(batch.tokens.shape == (0, 1) for batch in empty)


def test_an_engine_may_be_able_to_hold_less_than_the_model(tmp_path):
    with pytest.raises(UserError, match="do not fit into a context of 60"):
        make(VLLMEngine(max_response_length=50, max_model_length=60))


def test_the_seed_decides_the_order():
    tokens = [next(iter(make(seed=seed).train_dataloader())).tokens for seed in (1, 1, 2)]
    assert torch.equal(tokens[0], tokens[1])
    assert tokens[0].shape != tokens[2].shape or not torch.equal(tokens[0], tokens[2])


def test_validation_is_graded_and_the_same_whatever_the_seed():
    data = [make(seed=seed, validation_responses=2) for seed in (1, 2)]
    batches = [next(iter(part.val_dataloader()[0])) for part in data]
    assert [p.id for p in data[0].training_prompts] != [p.id for p in data[1].training_prompts]
    assert torch.equal(batches[0].tokens, batches[1].tokens)
    assert batches[0].rewards is not None
    assert batches[0].groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_training_rollouts_are_graded_only_if_rewards_are_read():
    data = make()
    assert next(iter(data.train_dataloader())).rewards is None
    data.grade_training = True
    assert next(iter(data.train_dataloader())).rewards is not None


def jsonl(folder, rows):
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return JSONLPrompts(path, teacher="math")


def test_a_prompt_that_does_not_fit_is_named(tmp_path):
    source = jsonl(tmp_path, [{"problem": "1;+1"}] * 8 + [{"problem": "1" * 230}])
    with pytest.raises(UserError, match=r"prompts.jsonl:9.*context of 256.*max_response_length"):
        make(HFEngine(64), prompts=source)


def test_prompts_that_do_not_fit_are_dropped_by_choice_and_counted(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("fireopd.training.data.rank_zero_info", said.append)
    problems = ["1;+1"] * 8 + ["1" * length for length in (190, 191, 230)]
    source = jsonl(tmp_path, [{"problem": problem, "answer": "2"} for problem in problems])
    source = JSONLPrompts(source.train, source.train, teacher="math")
    data = make(HFEngine(64), prompts=source, overlong_prompts="drop")
    lengths = [len(prompt.tokens) for prompt in data.training_prompts]
    assert (len(lengths), max(lengths)) == (9, 192), "190 digits, two tokens around them and a response of 64: 256"
    dropped = [f"2 of 11 {kind} prompts are too long and dropped" for kind in ("training", "validation")]
    assert said == dropped
    assert len(data.validation_prompts) == 9


def test_two_rows_with_one_id_are_refused(tmp_path):
    rows = [{"problem": f"1;+{n}", "uid": n % 3} for n in range(4)]
    source = JSONLPrompts(jsonl(tmp_path, rows).train, teacher="math", columns=Columns(id="uid"))
    with pytest.raises(UserError, match=r"prompts.jsonl:0.*2 training prompts of JSONLPrompts have this id\. Give"):
        make(prompts=source, batch_size=2)


def test_many_prompts_are_tokenized_as_each_alone(tmp_path):
    problems = [f"{n};+1" for n in range(1500)]
    data = make(prompts=jsonl(tmp_path, [{"prompt" if n % 3 else "problem": p} for n, p in enumerate(problems)]))
    for n, (prompt, problem) in enumerate(zip(data.training_prompts, problems, strict=True)):
        chat = [{"role": "user", "content": problem}]
        alone = encode_chats(data.tokenizer, [chat], {})[0] if n % 3 == 0 else tuple(data.tokenizer.encode(problem))
        assert prompt.tokens == alone


def test_too_few_prompts_for_a_batch(tmp_path):
    with pytest.raises(UserError, match=r"data.batch_size: 8: only 3 training prompts"):
        make(prompts=jsonl(tmp_path, [{"problem": "1;+1"}] * 3))


def test_an_empty_set_of_prompts(tmp_path):
    with pytest.raises(UserError, match="no training prompts"):
        make(prompts=jsonl(tmp_path, []))


def test_texts_are_taken_as_they_are_and_problems_through_the_template(tmp_path):
    rows = [{"prompt": "1;+1"}, {"prompt": [{"role": "user", "content": "1;+1"}]}, {"problem": "1;+1"}]
    data = make(prompts=jsonl(tmp_path, rows), batch_size=3)
    texts = [data.tokenizer.decode(list(prompt.tokens)) for prompt in data.training_prompts]
    assert texts == ["1;+1", "<|user|>1;+1<|assistant|>", "<|user|>1;+1<|assistant|>"]


@pytest.mark.parametrize(
    "name", ["batch_size", "responses_per_prompt", "validation_batch_size", "validation_responses"]
)
def test_sizes_have_a_range(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        RolloutDataModule(**{name: 0})


def test_chat_messages_need_a_chat_template(tmp_path, monkeypatch):
    source = jsonl(tmp_path, [{"prompt": "1;+1"}, {"problem": "1;+1"}])
    tokenizer = make().tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", None)
    monkeypatch.setattr("fireopd.training.data.load_tokenizer", lambda *arguments: tokenizer)
    with pytest.raises(UserError, match=r"data.prompts: .*prompts.jsonl:2.*no chat template"):
        make(prompts=source, batch_size=1)

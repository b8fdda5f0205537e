"""Contract of prompt sources: each invalid result names the setting, the source, the result and the remedy."""

from dataclasses import dataclass
from typing import Any

import pytest

from fireopd.errors import UserError
from fireopd.prompts import MixedPrompts, PromptSource, PromptText, TinyPrompts
from fireopd.prompts.contract import checked_order
from fireopd.prompts.tokenization import tokenize
from fireopd.training.data import RolloutDataModule
from fireopd.types.strategy import ContractError


@dataclass(frozen=True)
class Answering(PromptSource):
    """Returns any prompts, in any order."""

    texts: Any = ()
    indices: Any = None

    def training(self, seed):
        return self.texts

    def validation(self):
        return []

    def order(self, prompts, seed, epoch):
        return super().order(prompts, seed, epoch) if self.indices is None else self.indices(len(prompts), epoch)


def text(**changes):
    return PromptText(**({"content": "1+1", "teacher": "math", "task": "t", "answer": "2", "id": "a"} | changes))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "returned a NoneType from training. Return a list of PromptText"),
        ([text(), "1+1"], "returned a str from training for prompt 1. Return a PromptText"),
        (
            [text(teacher=None)],
            "returned teacher=None from training for prompt a. Set teacher to a text that is not empty",
        ),
        ([text(task="")], "task=''"),
        ([text(id=3)], "id=3"),
        ([text(answer=2)], "answer=2 .* Give the answer as text, or None"),
        ([text(details=["x"])], "details of the type list"),
        ([text(content="")], "an empty text"),
        ([text(content=[])], r"the content \[\] from training for prompt a"),
        ([text(content=[{"role": "user"}])], "the content .* Return text, or chat messages"),
        ([text(content=None)], "the content None"),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_invalid_prompts_name_the_source(texts, message, mixed):
    source = Answering(texts)
    data = RolloutDataModule(prompts=MixedPrompts({"own": source}) if mixed else source, batch_size=1)
    key = "data.prompts.sources.own" if mixed else "data.prompts"
    with pytest.raises(ContractError, match=f"^{key}: 'Answering': .*{message}.*check_prompts tests the contract"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (lambda size, epoch: None, "returned a NoneType from order. Return a list"),
        (lambda size, epoch: [0, size], "the index 2 from order, for 2 training prompts. Return integers from 0 to 1"),
        (lambda size, epoch: [0.0], "the index 0.0"),
        (lambda size, epoch: [-1], "the index -1"),
    ],
)
def test_an_invalid_order_names_the_source(indices, message):
    data = RolloutDataModule(prompts=Answering([text(), text(id="b")], indices), batch_size=1)
    with pytest.raises(ContractError, match=f"data.prompts: 'Answering': .*{message}"):
        data.setup("fit")


def test_epochs_have_equal_numbers_of_prompts():
    assert checked_order("data.prompts", TinyPrompts(), (1, 0, 1), 2, 3) == [1, 0, 1]
    with pytest.raises(ContractError, match="returned 1 indices from order, and 2 for the first epoch"):
        checked_order("data.prompts", TinyPrompts(), [0], 2, 2)


def test_a_prompt_without_tokens_is_named():
    def tokenizer(texts):
        return {"input_ids": [[5] * len(text.strip()) for text in texts]}

    with pytest.raises(UserError, match="data.prompts: 'b': the prompt has no tokens. Give it a text"):
        tokenize([text(), text(id="b", content=" ")], tokenizer, {}, "data.prompts")

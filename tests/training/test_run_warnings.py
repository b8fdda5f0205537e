"""Warnings of a run, and the prompts that `fireopd check` shows."""

import json
from dataclasses import replace

import pytest
from helpers.training import make_data, make_module
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from fireopd.callbacks import RunCheckpoint
from fireopd.prompts import JSONLPrompts
from fireopd.teachers import HFTeacher
from fireopd.training.data import RolloutDataModule
from fireopd.training.first_prompts import first_prompts
from fireopd.training.run_warnings import data_warnings, run_warnings


@pytest.fixture(scope="module")
def plan():
    module, data = make_module(), make_data()
    module.trainer = data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return module.run_plan(data)


def data_of(folder, *rows):
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = RolloutDataModule(prompts=JSONLPrompts(path, teacher="math"), batch_size=1)
    assert not data.load()
    return data


def test_unknown_text_and_closed_messages_are_counted(tmp_path):
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    data = data_of(tmp_path, {"problem": "1;+1"}, {"problem": "é1;é"}, {"prompt": chat})
    closed, unknown = data_warnings(data.plan())
    assert closed.startswith("1 of 3 prompts end with a message of the assistant, such as ")
    assert "prompts.jsonl:3: the response starts a new message" in closed
    assert unknown.startswith(
        "1 of 3 training prompts contain text that the student's tokenizer does not know, such as "
    )
    assert unknown.endswith("prompts.jsonl:2 (2 x <|pad|>)")
    data.problems, data.chat_template_options = None, {"continue_final_message": True}
    assert not data.load()
    assert data_warnings(data.plan()) == [unknown]


def test_runs_without_checkpoints_and_teachers_without_prompts(plan):
    (unsaved,) = run_warnings(plan)
    assert "no RunCheckpoint is among the callbacks" in unsaved
    saved = replace(plan, processes=replace(plan.processes, checkpoints=True))
    assert not run_warnings(saved)
    idle = replace(saved, teachers={**plan.teachers, "law": plan.teachers["math"]})
    assert run_warnings(idle) == ["no prompt names the teacher law"]


@pytest.mark.parametrize(("callbacks", "saves"), [([], False), ([ModelCheckpoint()], False), ([RunCheckpoint()], True)])
def test_only_a_run_checkpoint_writes_what_a_resume_finds(plan, callbacks, saves):
    """A trainer without a checkpoint callback adds Lightning's own."""
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=callbacks)
    assert trainer.checkpoint_callbacks
    assert type(plan.processes).of(trainer).checkpoints is saves


def test_the_first_prompt_of_each_teacher_is_shown_as_text_and_tokens(plan):
    lines = first_prompts(plan)
    first = next(prompt for prompt in plan.data.training_prompts if prompt.teacher == "code")
    place = lines.index(f"first prompt of code: {first.id} ({len(first.tokens)} tokens)")
    text = first.content[0]["content"]
    assert lines[place + 1] == f"  text    <|user|>{text}<|assistant|>"
    assert lines[place + 2] == f"  tokens  <|user|>│{'│'.join(text)}│<|assistant|>"
    assert len(lines) == 6


def test_a_teacher_with_context_sees_another_prompt_and_long_ones_are_shortened(plan):
    context = [{"role": "user", "content": "1;+1" * 30}]
    lines = first_prompts(replace(plan, teachers={"math": HFTeacher("tiny/math", context=context)}))
    assert lines[3].startswith("as math sees it (1")
    assert "tokens ... " in lines[4]
    assert lines[4].startswith("  text    <|user|>1;+11;+1")
    assert lines[4].endswith("<|assistant|>")

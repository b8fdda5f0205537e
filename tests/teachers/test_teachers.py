"""Teachers: routing, deduplication, freezing, and checks before loading."""

import shutil

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from transformers import GenerationConfig

from fireopd.errors import UserError
from fireopd.models.loading import EMBEDDED, disable_dropout, load_tokenizer, resolve, stop_tokens
from fireopd.teachers import HFTeacher, Teacher, deduplicate, score_by_teachers
from fireopd.training.stopwatch import Stopwatch
from fireopd.types import TokenScores

CPU = torch.device("cpu")


class Constant(Teacher):
    """Returns its number as the score and counts its rows."""

    def __init__(self, number):
        self.number, self.rows = number, 0

    def check(self, key, tokenizer):
        pass

    def setup(self, key, device, shard):
        pass

    def score(self, rollouts, *, entropy):
        self.rows += len(rollouts.teachers)
        assert set(rollouts.teachers) == {f"t{self.number}"}
        values = torch.where(rollouts.response_mask, float(-self.number), 0.0)
        return TokenScores(values, values.abs() if entropy else None)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_teacher_scores_only_its_own_rows(count):
    names = [f"t{1 + i % count}" for i in range(10)]
    rollouts = rollouts_of(scored_batch(10, 12, teachers=names))
    teachers = {f"t{i}": Constant(i) for i in range(1, count + 2)}
    watch = Stopwatch()
    scores, _ = score_by_teachers(teachers, rollouts, watch, entropy=True, distributions=False)
    for row, name in enumerate(names):
        expected = torch.where(rollouts.response_mask[row], -float(name[1:]), 0.0)
        assert torch.equal(scores.logprobs[row], expected)
        assert torch.equal(scores.entropy[row], -expected)
    assert sum(teacher.rows for teacher in teachers.values()) == 10
    assert set(watch.seconds) == {f"teacher/{name}" for name in names}
    assert score_by_teachers(teachers, rollouts, watch, entropy=False, distributions=False)[0].entropy is None


def test_teachers_with_equal_settings_are_loaded_once(monkeypatch):
    loads = []
    from fireopd.teachers import huggingface as module

    real = module.load_causal_lm
    monkeypatch.setattr(module, "load_causal_lm", lambda *a: loads.append(a) or real(*a))
    shared = deduplicate({"a": HFTeacher("tiny/math"), "b": HFTeacher("tiny/math"), "c": HFTeacher("tiny/code")})
    assert shared["a"] is shared["b"]
    assert shared["a"] is not shared["c"]
    for name, teacher in shared.items():
        teacher.setup(name, CPU)
    assert len(loads) == 2
    parameters = list(shared["a"].scorer.parameters())
    assert parameters
    assert not any(p.requires_grad for p in parameters)
    assert not shared["a"].scorer.model.training


def tiny_copy(tmp_path, change):
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "math", folder)
    file = folder / "tokenizer_config.json" if "eos" in change[0] else folder / "tokenizer.json"
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    return str(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"z":', '"Z":'), "model.teachers.x.path: .*its vocabulary differs from the student's"),
        (('"eos_token": "<|end|>"', '"eos_token": "<|user|>"'), "its eos_token is '<|user|>', the student's '<|end|>'"),
    ],
)
def test_a_teacher_with_another_vocabulary_is_rejected(tmp_path, change, message):
    HFTeacher("tiny/math").check("model.teachers.x", "tiny/student", [], 8)
    with pytest.raises(UserError, match=message.replace("|", r"\|")):
        HFTeacher(tiny_copy(tmp_path, change)).check("model.teachers.x", "tiny/student", [], 8)


def test_different_stop_tokens_are_a_warning(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "math", folder)
    GenerationConfig(eos_token_id=[1, 5]).save_pretrained(folder)
    with pytest.warns(UserWarning, match=r"the teacher stops at <\|end\|>, ., the student at <\|end\|>"):
        HFTeacher(str(folder)).check("model.teachers.x", "tiny/student", [], 8)


def test_a_prompt_that_exceeds_the_teachers_context_is_reported(tiny_prompts):
    HFTeacher("tiny/math").check("model.teachers.x", "tiny/student", tiny_prompts, 200)
    with pytest.raises(UserError, match="do not fit into the teacher's context of 256"):
        HFTeacher("tiny/math").check("model.teachers.x", "tiny/student", tiny_prompts, 250)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny/law", "no embedded model of that name. Use one of tiny/code, tiny/code_specialist"),
        ("./nowhere", "no such folder"),
        ("/nowhere/at/all", "no such folder"),
    ],
)
def test_missing_models_are_reported(name, message):
    with pytest.raises(UserError, match=f"model.student: '{name}': {message}"):
        resolve(name, "model.student")


def test_a_folder_without_a_model_is_rejected(tmp_path):
    with pytest.raises(UserError, match="holds no config.json"):
        resolve(str(tmp_path), "model.student")


def test_hub_names_are_unchanged_and_local_folders_take_precedence(tmp_path, monkeypatch):
    assert resolve("Qwen/Qwen3-4B", "model.student") == "Qwen/Qwen3-4B"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EMBEDDED / "student", tmp_path / "own" / "model")
    assert resolve("own/model", "model.student") == "own/model"


def test_a_model_that_cannot_be_loaded_is_reported(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "student", folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="could not be loaded"):
        load_tokenizer(str(folder), "model.student")


def test_stop_tokens_of_the_embedded_student():
    tokenizer = load_tokenizer("tiny/student", "model.student")
    assert stop_tokens("tiny/student", "x", tokenizer) == {tokenizer.eos_token_id}


def test_dropout_stays_disabled_in_training_mode():
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    model = disable_dropout(AutoModelForCausalLM.from_config(config)).train()
    tokens = torch.arange(8)[None]
    assert torch.equal(model(tokens).logits, model(tokens).logits)

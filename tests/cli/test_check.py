"""`fireopd check`: all problems of a configuration, without training, and the memory estimate."""

import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.training import make_data, make_module
from rich.console import Console
from transformers import LlamaConfig

from fireopd.cli.main import main
from fireopd.models.loading import load_causal_lm, load_config
from fireopd.models.model_size import count_parameters
from fireopd.training import memory_estimate
from fireopd.training.layer_memory import layer_bytes, scoring_bytes
from fireopd.training.memory_phases import memory_phases

CONFIG = "--config=configs/multi_teacher.yaml"
FEW = "--data.prompts.num_training=64"
"""Prompts are tokenized by a check; those of the file take seconds."""


def check(capsys, *arguments, code=0):
    if code:
        with pytest.raises(SystemExit) as stop:
            main(["check", CONFIG, *arguments])
        assert stop.value.code == code
    else:
        main(["check", CONFIG, *arguments])
    out, error = capsys.readouterr()
    assert "Traceback" not in out + error
    return " ".join(out.split())


def test_a_sound_run_is_described_without_a_model(capsys, monkeypatch, tmp_path):
    for place in ("training.student", "teachers.huggingface", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *a: pytest.fail("a model was loaded"))
    said = check(capsys, f"--trainer.default_root_dir={tmp_path}")
    for part in (
        "No problems found",
        "math = HFTeacher(path='tiny/math'",
        "steps 150",
        "student: optimizer",
        "total",
    ):
        assert part in said
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_memory_that_cannot_be_estimated_stops_no_check(capsys, monkeypatch, tmp_path):
    def fail(*given):
        raise KeyError("num_attention_heads")

    monkeypatch.setattr("fireopd.cli.commands.check.memory_phases", fail)
    said = check(capsys, FEW, f"--trainer.default_root_dir={tmp_path}", "--data.prompts.teachers={math: math}")
    assert "The memory of a process cannot be estimated (KeyError('num_attention_heads')). No problems found." in said
    assert said.endswith(f"No problems found. Warnings above: {said.count('warning: ')}.")
    assert "warning: " in said


def test_gpus_that_are_not_there_take_their_kernels(capsys, monkeypatch):
    monkeypatch.setattr("fireopd.models.fused_logprobs.has_triton", lambda: False)
    said = check(capsys, FEW, "--gpus=1", "--gpu_memory=24", "--model.kernels=triton")
    assert "log-probabilities by fused Triton kernels" in said
    assert "this machine lacks it: model.kernels: 'triton': Triton is not installed" in said


def test_a_terminal_shows_what_is_computed(capsys, monkeypatch):
    monkeypatch.setattr("fireopd.cli.commands.check.Console", partial(Console, force_terminal=True))
    with pytest.raises(SystemExit):
        main(["check", CONFIG, FEW, "--gpus=1", "--gpu_memory=1"])
    out, error = capsys.readouterr()
    assert "does not fit: " in out
    for stage in (
        "reading the configuration",
        "tokenizing the prompts",
        "measuring the memory",
        "looking for a change",
    ):
        assert stage in error


def test_all_that_is_wrong_is_said_at_once(capsys):
    wrong = ["--model.teachers.math.path=tiny/nope", "--data.engine.top_p=0.9"]
    said = check(capsys, FEW, *wrong, "--model.objective=ExtrapolatedReverseKL", code=2)
    for key in (
        "model.teachers.math.path: 'tiny/nope'",
        "data.engine.top_p: 0.9",
        "model.base: None",
    ):
        assert f"problem: {key}" in said
    assert "3 problems found." in said


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--data.engine.max_response_length=5000", "problem: data.prompts: 'code:.* do not fit into a context of 256"),
        ("--data.batch_size=99999", "problem: data.batch_size: 99999: only 64 training prompts"),
    ],
)
def test_prompts_that_cannot_be_used_are_said(capsys, wrong, message):
    import re

    assert re.search(message, check(capsys, FEW, wrong, code=2))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_this_machine_does_not_have_is_said_in_a_sentence(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", CONFIG, "--trainer.accelerator=gpu"])
    assert stop.value.code == 2
    assert "fireopd: trainer.accelerator: 'gpu':" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "fit"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--trainer.gradient_clip_val=1", "trainer.gradient_clip_val: 1"),
        ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches: 2: "),
        ("--trainer.default_root_dir={file}", "trainer.default_root_dir: '{file}': {file} is a file. "),
        ("--trainer.max_steps=0", "trainer.max_steps: 0: the run would have no step. Give a positive number"),
        ("--trainer.max_epochs=0", "trainer.max_epochs: 0: the run would have no step. Give a positive number"),
        ("--trainer.val_check_interval=0", "trainer.val_check_interval: 0: validations would have no batch between"),
        ("--model.optimizer.lr=-1", "model.optimizer: 'AdamW': Invalid learning rate: -1.0. "),
        ("--data.engine.temperature=.inf", "data.engine.temperature: inf: "),
    ],
)
def test_settings_that_no_run_supports_are_refused_before_models_are_loaded(
    capsys, monkeypatch, tmp_path, command, wrong, message
):
    for place in ("training.student", "teachers.huggingface", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *a: pytest.fail("a model was loaded"))
    file = tmp_path / "file"
    file.touch()
    folder = f"--trainer.default_root_dir={tmp_path / 'runs'}"
    with pytest.raises(SystemExit) as stop:
        main([command, CONFIG, FEW, folder, wrong.format(file=file)])
    assert stop.value.code == 2
    out, error = capsys.readouterr()
    assert message.format(file=file) in (out if command == "check" else error)
    assert "Traceback" not in out + error


def test_parameters_are_counted_without_loading_them():
    for name in ("tiny/student", "tiny/small"):
        model = load_causal_lm(name, "x", "float32")
        assert count_parameters(load_config(name, "x")) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (torch.optim.AdamW, 8),
        (torch.optim.SGD, 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 4),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 12),
    ],
)
def test_the_optimizers_state_is_found_by_a_step(optimizer, expected):
    assert memory_estimate.optimizer_bytes(optimizer) == expected


def test_the_cache_is_what_a_forward_pass_leaves():
    model = load_causal_lm("tiny/student", "x", "float32")
    cache = model(torch.zeros(1, 7, dtype=torch.int64), use_cache=True).past_key_values
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert kept == 7 * memory_estimate.cache_per_token(model.config)


def test_activations_are_what_a_forward_pass_keeps():
    """Measured without values on two layers, they are those of all four."""
    model, kept = load_causal_lm("tiny/student", "x", "float32"), {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.base_model(torch.zeros(2, 100, dtype=torch.int64), use_cache=False).last_hidden_state
    real = sum(size for pointer, size in kept.items() if pointer not in own) / 200
    assert hidden.requires_grad
    layer = layer_bytes(model.config, 2, 100, torch.float32, gpu=False)
    estimated = layer.saved * model.config.num_hidden_layers + layer.norm
    assert estimated / 200 == pytest.approx(real, rel=0.05)
    assert layer.boundary == 4 * model.config.hidden_size * 200
    assert layer.backward > layer.saved > scoring_bytes(model.config, 2, 100, torch.float32, gpu=False) > layer.boundary


def test_the_measured_layer_has_no_tokens_to_warn_of(caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_attention_heads=2, bos_token_id=30, eos_token_id=31)
    try:
        layer_bytes(config, 1, 5, torch.float32, gpu=False)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.messages


def test_sharding_halves_what_two_processes_share():
    from lightning import Trainer

    module, data = make_module(optimizer=torch.optim.AdamW), make_data()
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer = data.trainer = trainer
    data.setup("fit")
    plan = module.run_plan(data)
    one = {part.name: part.size for part in memory_phases(plan, 2**34)[3].parts}
    processes = replace(plan.processes, shards=2, strategy="FSDP2Strategy")
    two = {part.name: part.size for part in memory_phases(replace(plan, processes=processes), 2**34)[3].parts}
    halved = {name for name in one if two.get(name) == one[name] // 2}
    assert halved == {name for name in one if name.startswith(("student", "teacher"))}
    assert one["student: optimizer"] == 2 * one["student: weights"]

"""GPU check: every question answers on a CPU, and one that fails, hangs or dies does not end the others."""

import json
import os
import sys
import threading
from importlib import import_module
from types import ModuleType

import pytest

import check_gpu
from gpu_checks import embedded_run, questions, trl_step
from gpu_checks.measure import attempt, model_tflop
from gpu_checks.random_models import active_parameters, config_of, random_model
from gpu_checks.report import NOT_MEASURED
from gpu_checks.sizes import Sizes

SIZES = Sizes.small("cpu")
ELSEWHERE = {"efficient", "cuDNN"}
"""Kernels of attention that a CPU does not have."""


@pytest.mark.parametrize("name", [q.name for q in questions.QUESTIONS if q.name != "embedded_run"])
def test_every_question_answers_on_a_cpu(name, monkeypatch):
    monkeypatch.setattr(trl_step, "NEEDED", ("no_such_package",))
    rows = list(import_module(f"gpu_checks.{name}").ask(SIZES))
    assert rows
    for row in rows:
        assert "error" not in row or row["case"].split(", ")[-1] in ELSEWHERE, row
        assert "peak GB" not in row, "no figure of a GPU without one"
        assert "MFU" not in row
    if name == "cpu_parity":
        gaps = [value for row in rows for key, value in row.items() if "diff" in key]
        assert gaps
        assert set(gaps) == {0.0}, "the CPU agrees with itself"
    if name == "sharding":
        by_case = {row["case"].rpartition(" ")[2]: row for row in rows if "gradients" in row["case"]}
        assert by_case["float32"]["relative difference from float32"] < 1e-6
        assert 1e-4 < by_case["bfloat16"]["relative difference from float32"] < 0.05
    if name == "trl_step":
        assert rows == [{"case": "TRL", "skipped": "Skipped: no_such_package cannot be imported."}]


def test_a_shifted_curve_of_the_embedded_run_is_reported(tmp_path, monkeypatch):
    curve, _ = embedded_run.train(SIZES, tmp_path, "cpu", embedded_run.CPUEngine, steps=1)
    assert len(curve) == 1
    assert set(embedded_run.COMPARED) <= curve[0].keys()
    shifted = [curve[0] | {"train/loss": curve[0]["train/loss"] + 0.25}]
    monkeypatch.setattr(embedded_run, "train", lambda *_, **__: (shifted, 1.0))
    row = embedded_run.compared(SIZES, tmp_path, "cpu", curve, engine=embedded_run.CPUEngine)
    assert row["max |d train/loss|"] == pytest.approx(0.25)
    assert row["max |d train/grad_norm|"] == 0


def fake(monkeypatch, **asks):
    """Register questions by their functions."""
    made = []
    for name, ask in asks.items():
        module = ModuleType(f"gpu_checks.{name}")
        module.ask = ask
        monkeypatch.setitem(sys.modules, module.__name__, module)
        made.append(questions.Question(name, f"About {name}", 0.5 if name == "hanging" else 60.0))
    monkeypatch.setattr(check_gpu, "QUESTIONS", tuple(made))
    monkeypatch.setattr(check_gpu, "preload", lambda: None)
    return list(asks)


def test_a_question_that_fails_hangs_or_dies_does_not_end_the_others(tmp_path, monkeypatch):
    def failing(sizes):
        yield {"case": "first", "ms": 1.0}
        raise ValueError("no such kernel")

    def hanging(sizes):
        yield {"case": "before", "ms": 2.0}
        threading.Event().wait()

    def dying(sizes):
        yield {"case": "alive"}
        os._exit(7)

    def sound(sizes):
        yield attempt("bad case", lambda: 1 / 0)
        yield attempt("good case", lambda: {"ms": 12345.6, "text": "a|b"})

    names = fake(monkeypatch, failing=failing, hanging=hanging, dying=dying, sound=sound)
    answers = check_gpu.ask_all(SIZES, names, 600, tmp_path)
    assert [answers[name].problem for name in names] == [
        "ValueError: no such kernel",
        "stopped after 0 s",
        "the process ended early with exit code 7",
        None,
    ]
    assert [row["case"] for row in answers["failing"].rows] == ["first"]
    assert answers["sound"].rows[0]["error"] == "ZeroDivisionError: division by zero"
    saved = json.loads((tmp_path / "gpu_check.json").read_text())
    assert (saved["device"], saved["small"]) == ("cpu", True)
    assert saved["questions"]["sound"]["rows"] == answers["sound"].rows
    text = (tmp_path / "gpu_check.md").read_text()
    assert NOT_MEASURED in text
    assert "### About dying" in text
    assert "Not finished: ValueError: no such kernel." in text
    assert "| good case |  | 12,346 | a\\|b |" in text


def test_no_question_starts_without_time(tmp_path, monkeypatch):
    names = fake(monkeypatch, late=lambda sizes: iter([{"case": "never"}]))
    answers = check_gpu.ask_all(SIZES, names, 1, tmp_path)
    assert (answers["late"].rows, answers["late"].problem) == ([], "no time was left")


def test_a_refusal_of_cuda_to_fork_is_recognised():
    text = "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, use the 'spawn' method"
    assert questions.cannot_fork(questions.Answer("t", [], 0.0, f"RuntimeError: {text}"))
    assert not questions.cannot_fork(questions.Answer("t", [{"case": "a", "error": "out of memory"}], 0.0, None))


def test_sizes_of_a_gpu_are_refused_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", "--device", "cpu", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        check_gpu.main()
    assert stop.value.code == 2
    assert "--device cpu requires --small" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_boxes_fit_into_the_limit():
    assert sum(question.seconds for question in questions.QUESTIONS) <= 8 * 60


def test_published_shapes_have_published_sizes():
    """4.02 B, 1.72 B and 0.6 B parameters; 3.3 B of 30.5 B active, of which the input embedding is 0.31 B."""
    import torch
    from transformers import AutoModelForCausalLM

    expected = {"Qwen3-4B": 4.02, "Qwen3-1.7B": 1.72, "Qwen3-0.6B": 0.596, "Qwen3-30B-A3B": 3.04}
    for name, billions in expected.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config_of(name, Sizes()))
        assert active_parameters(model) / 1e9 == pytest.approx(billions, rel=0.01)


def test_arithmetic_of_a_model_is_that_of_its_products():
    """Against the counter of PyTorch, which counts masked attention in full."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shape = random_model("Qwen3-4B", SIZES, torch.float32)
    shape.model.set_attn_implementation("eager")  # the counter knows no fused attention of a CPU
    config, tokens = shape.model.config, torch.randint(3, 100, (2, 12))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shape.model(tokens, use_cache=False)
    masked = 2 * 2 * 12**2 * config.num_attention_heads * config.head_dim * config.num_hidden_layers / 1e12
    norms = sum(p.numel() for p in shape.model.parameters() if p.ndim == 1)
    found = model_tflop(config, shape.active - norms, 2, 12, backward=False)
    assert found + masked == pytest.approx(counter.get_total_flops() / 1e12, rel=1e-6)
    assert model_tflop(config, 5, 2, 12, backward=True) == 3 * model_tflop(config, 5, 2, 12, backward=False)

"""Summary line of a run."""

import re
from dataclasses import replace

import pytest
import torch
from helpers.training import make_data, make_module
from lightning import Trainer

from fireopd.engines import MemoryPart
from fireopd.models.loading import load_causal_lm
from fireopd.teachers import HFTeacher, Teacher
from fireopd.training import run_summary
from fireopd.training.memory_phases import memory_phases


@pytest.fixture
def run():
    module, data = make_module(), make_data()
    module.trainer = data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    return module, data


@pytest.fixture
def plan(run):
    module, data = run
    return module.run_plan(data)


def test_one_line_names_models_method_step_and_memory(run, plan):
    line = run_summary.summary_line(plan)
    assert "\n" not in line
    size = sum(p.numel() for p in load_causal_lm("tiny/student", "x", "float32").parameters()) / 1e6
    assert line.startswith(f"Student tiny/student ({size:.1f} M parameters) · teachers ")
    for strategy in run[0].method.strategies.values():
        assert str(strategy) in line
    assert f"{run[1].batch_size} trajectories of at most {run[1].engine.max_response_length} tokens" in line
    assert " · log-probabilities by PyTorch operations on chunks of logits, attention by sdpa · " in line
    assert re.search(r"about \d+\.\d of \d+\.\d GiB \(cpu\) a process$", line)


def test_it_draws_no_random_number_of_the_run(plan):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_summary.summary_line(plan)
    assert torch.equal(torch.rand(3), expected)


def test_a_model_that_cannot_be_measured_stops_no_run(plan, monkeypatch):
    def fail(*_):
        raise KeyError("num_attention_heads")

    monkeypatch.setattr(run_summary, "memory_phases", fail)
    assert run_summary.summary_line(plan).endswith("memory not known")
    monkeypatch.setattr(run_summary, "count_parameters", fail)
    assert run_summary.summary_line(plan).startswith("Student tiny/student (size not known) · teachers ")


def test_one_process_works_the_line_out(run, monkeypatch):
    module, data = run
    module.trainer.datamodule = data
    said = []
    monkeypatch.setattr("fireopd.training.module.check_run", lambda *given: None)
    monkeypatch.setattr("fireopd.training.module.summary_line", lambda *given: said.append(given) or "")
    monkeypatch.setattr(module, "teachers", {})
    for rank in (1, 0):
        monkeypatch.setattr(Trainer, "is_global_zero", rank == 0)
        module.setup("fit")
        assert len(said) == (rank == 0)


class Oracle(Teacher):
    check = setup = score = None


class Table(Oracle):
    def memory(self, shards):
        return {"table": MemoryPart(8 * 10**6 // shards, "a million numbers")}


def test_plug_in_teachers_and_the_base_model_are_in_the_memory(plan):
    base = HFTeacher("tiny/small")
    teachers = {**plan.teachers, "oracle": Oracle(), "table": Table()}
    plan = replace(plan, teachers=teachers, base=base, signals=plan.signals | {"base_logprobs"})
    parts = {part.name: part for part in memory_phases(plan, 2**34)[0].parts}
    assert parts["teacher oracle"].size == 0
    assert parts["teacher oracle"].formula == "not included: Oracle does not give its memory"
    assert parts["teacher table: table"].size == 8 * 10**6
    small = sum(p.numel() for p in load_causal_lm("tiny/small", "x", "float32").parameters())
    assert parts["base model: weights"].size == 4 * small
    for other in (
        replace(plan, base=teachers["math"]),
        replace(plan, signals=plan.signals - {"base_logprobs"}),
    ):
        assert not any("base" in part.name for part in memory_phases(other, 2**34)[0].parts)


@pytest.mark.parametrize(
    ("epochs", "steps", "updates", "expected"),
    [(1, -1, 1, 2), (-1, 5, 1, 5), (3, 5, 2, 3), (None, -1, 1, 2), (-1, -1, 2, None), (-1, 0, 1, 0)],
)
def test_the_number_of_steps(plan, epochs, steps, updates, expected):
    processes = replace(plan.processes, max_epochs=epochs, max_steps=steps)
    plan = replace(plan, processes=processes, budgets=replace(plan.budgets, mini_batches=updates))
    assert plan.steps == expected
    assert plan.optimizer_steps == (None if expected is None else expected * updates)

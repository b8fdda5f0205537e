"""Model card of an exported student."""

import json

import pytest
from huggingface_hub import ModelCard

from fireopd.analysis.model_card import model_card, wilson_interval

SETTINGS = {
    "model": {
        "teachers": {
            "math": {"class_path": "fireopd.teachers.HFTeacher", "init_args": {"path": "/home/me/models/math"}},
            "code": {"class_path": "fireopd.teachers.HFTeacher", "init_args": {"path": "Qwen/Qwen3-8B"}},
        },
        "objective": {"class_path": "fireopd.objectives.ReverseKL"},
        "normalization": "trajectory",
    },
    "data": {
        "prompts": {"class_path": "fireopd.prompts.ParquetPrompts", "init_args": {"train": "/home/me/a.parquet"}},
    },
}
SAVED = {"policy_version": 150, "settings": SETTINGS}


def test_a_card_states_what_was_done_and_no_folder_of_the_machine(tmp_path):
    tasks = {"math": {"student_before": 0.25, "student_after": 0.5, "teacher": None}}
    (tmp_path / "summary.json").write_text(json.dumps({"tasks": tasks, "prompts": {"math": 64}, "seconds": 1.0}))
    (tmp_path / "environment.json").write_text(json.dumps({"packages": {"torch": "2.11", "pip": "1"}}))
    card = ModelCard(model_card("me/student", "Qwen/Qwen3-1.7B", SAVED, tmp_path, adapter=False))
    assert card.data.base_model == "Qwen/Qwen3-1.7B"
    low, high = wilson_interval(0.5, 64)
    for part in (
        "Qwen/Qwen3-1.7B after 150 optimizer steps",
        "| code | HFTeacher | Qwen/Qwen3-8B |",
        "| math | HFTeacher | math |",
        "fireopd.objectives.ReverseKL",
        "ParquetPrompts; `train`: a.parquet",
        f"0.500 ({low:.3f} to {high:.3f}) | - |",
        "| torch | 2.11 |",
        'AutoModelForCausalLM.from_pretrained("me/student")',
    ):
        assert part in card.content
    assert "/home/me" not in card.content
    assert str(tmp_path) not in card.content


def test_a_card_without_run_or_settings():
    card = ModelCard(model_card("out", "/models/own", {"policy_version": 0, "settings": {}}, None, adapter=True))
    assert card.data.base_model is None
    assert card.data.library_name == "peft"
    assert "own after 0 optimizer steps" in card.text
    assert "Results" not in card.text


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0370), (0.5, 0.4038, 0.5962), (1.0, 0.9630, 1.0)])
def test_the_interval_is_that_of_the_tables(share, low, high):
    """Published values for 100 trials and 95 % (Brown, Cai, DasGupta 2001, formula 4)."""
    assert wilson_interval(share, 100) == pytest.approx((low, high), abs=5e-5)

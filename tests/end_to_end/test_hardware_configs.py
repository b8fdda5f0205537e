"""Configurations for GPUs pass all checks and fit their cards; models are folders with configurations only."""

import json
from types import SimpleNamespace

import pytest
from helpers.paths import CONFIGS
from transformers import Qwen3Config, Qwen3MoeConfig

from fireopd.cli.training_cli import build
from fireopd.models.loading import load_tokenizer
from fireopd.training import memory_estimate
from fireopd.training.run_checks import problems

GB = 1e9
GATHERED = 6.3 * GB
"""Gathered embeddings and layers with their gradients under FSDP2, which the estimate leaves out."""
CUDA = 3 * GB
"""Context of CUDA and NCCL, and what vLLM keeps while it sleeps."""
DENSE = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "max_position_embeddings": 40_960}
MODELS = {
    "0.6B": Qwen3Config(
        hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        tie_word_embeddings=True, **DENSE,
    ),
    "1.7B": Qwen3Config(
        hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16,
        tie_word_embeddings=True, **DENSE,
    ),
    "4B": Qwen3Config(
        hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
        tie_word_embeddings=True, **DENSE,
    ),
    "8B": Qwen3Config(
        hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        tie_word_embeddings=False, **DENSE,
    ),
    "32B": Qwen3Config(
        hidden_size=5120, intermediate_size=25600, num_hidden_layers=64, num_attention_heads=64,
        tie_word_embeddings=False, **DENSE,
    ),
    "30B-A3B": Qwen3MoeConfig(
        hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=48,
        num_attention_heads=32, num_experts=128, num_experts_per_tok=8, tie_word_embeddings=False,
        **DENSE | {"num_key_value_heads": 4},
    ),
}  # fmt: skip
"""Published shapes; the tokenizer is that of the embedded models."""
CASES = {
    "paper/single_teacher": ("4B", {"math": "4B"}, 8, 80),
    "paper/multi_teacher": ("4B", {"math": "4B", "code": "4B"}, 8, 80),
    "paper/strong_to_weak": ("4B", {"math": "30B-A3B"}, 8, 80),
    "recipes/mopd_qwen3_8b": ("8B", {"math": "32B", "code": "30B-A3B"}, 8, 80),
    "hardware/one_24gb_card": ("0.6B", {"math": "1.7B", "code": "1.7B"}, 1, 24),
    "hardware/one_80gb_card": ("1.7B", {"math": "4B", "code": "4B"}, 1, 80),
    "hardware/eight_80gb_cards": ("8B", {"math": "32B", "code": "30B-A3B"}, 8, 80),
    "hardware/two_nodes": ("8B", {"math": "32B", "code": "30B-A3B"}, 16, 80),
}
"""Student, teachers, processes, and GiB of a card, by configuration."""
ACTIVATIONS = {1024: 120_000, 2048: 214_196, 2560: 320_820, 4096: 410_932}
"""Bytes per token that a layer saves in float32, by hidden size, from `activations_per_token`, which takes seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of configurations and tokenizers, and a file of prompts."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = load_tokenizer("tiny/student", "student")
    for name, config in MODELS.items():
        config.eos_token_id = tokenizer.eos_token_id
        for place in (folder / name, folder / "math" / name, folder / "code" / name):
            config.save_pretrained(place)
            tokenizer.save_pretrained(place)
    rows = [{"problem": f"{n}+1=", "answer": str(n + 1), "teacher": ("math", "code")[n % 2]} for n in range(2048)]
    (folder / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "one.jsonl").write_text("".join(json.dumps(row | {"teacher": "math"}) + "\n" for row in rows))
    return folder


def plan_of(monkeypatch, folder, name, *more):
    """Return the plan of a configuration with models from folders, on stand-ins for GPUs."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("fireopd.engines.vllm.engine.import_vllm", lambda *_: SimpleNamespace(__version__="0.32.0"))
    monkeypatch.setattr(memory_estimate, "activations_per_token", lambda config: ACTIVATIONS[config.hidden_size])
    student, teachers, _, _ = CASES[name]
    arguments = [f"--config={CONFIGS}/{name}.yaml"]
    if name.startswith("hardware/"):
        arguments = [f"--config={CONFIGS}/multi_teacher.yaml", *arguments, "--data.engine.max_response_length=2048"]
        arguments += ["--data.prompts=JSONLPrompts"]
        each = (
            f"{teacher}: {{class_path: HFTeacher, init_args: {{path: {folder / teacher / model}, dtype: bfloat16}}}}"
            for teacher, model in teachers.items()
        )
        arguments += [f"--model.teachers={{{', '.join(each)}}}"]
    else:
        arguments += [
            f"--model.teachers.{teacher}.path={folder / teacher / model}" for teacher, model in teachers.items()
        ]
    if name.startswith("paper/"):
        arguments += ["--trainer.devices=8"]
    prompts = folder / ("two.jsonl" if len(teachers) == 2 else "one.jsonl")
    arguments += [f"--model.student={folder / student}", f"--data.prompts.train={prompts}", "--trainer.accelerator=cpu"]
    cli = build([*arguments, *more], train=False)
    cli.prepare()
    return cli.model.run_plan(cli.datamodule)


def peaks(plan, card):
    """Return bytes of a GPU during the update, with vLLM asleep, and during the rollout."""
    parts = {part.name: part.size for part in memory_estimate.estimate(plan) if not part.name.startswith("rollouts")}
    sharded = GATHERED if plan.processes.shards > 1 else 0
    kept = sum(size for name, size in parts.items() if not name.startswith("update") and "gradients" not in name)
    return {
        "update": sum(parts.values()) + sharded + CUDA,
        "rollout": kept + plan.data.engine.memory_fraction * card + CUDA,
    }


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_passes_the_checks_and_fits_its_cards(monkeypatch, folder, name):
    plan = plan_of(monkeypatch, folder, name)
    _, _, processes, gib = CASES[name]
    assert plan.processes.world_size == processes
    assert [str(problem) for problem in problems(plan)] == []
    found = peaks(plan, gib * 2**30)
    assert max(found.values()) < gib * 2**30, found
    assert plan.dtype == "float32", "weights that the optimizer changes"
    assert plan.data.engine.dtype == "bfloat16"


def test_replicated_models_of_the_paper_do_not_fit(monkeypatch, folder):
    plan = plan_of(monkeypatch, folder, "paper/multi_teacher", "--trainer.strategy=ddp")
    assert peaks(plan, 80 * 2**30)["update"] > 80 * 2**30

"""Configurations for GPUs pass all checks and fit their cards; models are folders with configurations only."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers.paths import CONFIGS
from transformers import DeepseekV3Config, Qwen3Config, Qwen3MoeConfig

from fireopd.cli.training_cli import build
from fireopd.distributed.fsdp import Sharding
from fireopd.models.loading import load_tokenizer
from fireopd.models.model_size import count_parameters
from fireopd.training.gpu_cards import find_card
from fireopd.training.host_memory import host_parts
from fireopd.training.memory_phases import memory_phases
from fireopd.training.remedies import cheapest_remedy, shortages
from fireopd.training.run_checks import problems
from fireopd.training.step_seconds import active_parameters, step_seconds

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
    "hardware/one_24gb_card_offload": ("4B", {"math": "4B", "code": "4B"}, 1, 24),
    "hardware/one_80gb_card": ("1.7B", {"math": "4B", "code": "4B"}, 1, 80),
    "hardware/eight_80gb_cards": ("8B", {"math": "32B", "code": "30B-A3B"}, 8, 80),
    "hardware/two_nodes": ("8B", {"math": "32B", "code": "30B-A3B"}, 16, 80),
}
"""Student, teachers, processes, and GiB of a card, by configuration."""


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
            (place / "model.safetensors").touch()  # nothing loads it
    rows = [{"problem": f"{n}+1=", "answer": str(n + 1), "teacher": ("math", "code")[n % 2]} for n in range(2048)]
    (folder / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "one.jsonl").write_text("".join(json.dumps(row | {"teacher": "math"}) + "\n" for row in rows))
    return folder


def plan_of(monkeypatch, folder, name, *more):
    """Return the plan of a configuration with models from folders, on stand-ins for GPUs."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("fireopd.engines.vllm.engine.import_vllm", lambda *_: SimpleNamespace(__version__="0.32.0"))
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


def on_gpus(plan, gpus):
    return replace(plan, processes=plan.processes.on_gpus(gpus))


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_passes_the_checks_and_fits_its_cards(monkeypatch, folder, name):
    plan = plan_of(monkeypatch, folder, name)
    _, _, processes, gib = CASES[name]
    assert plan.processes.world_size == processes
    assert [str(problem) for problem in problems(plan)] == []
    assert shortages(on_gpus(plan, processes), gib * 2**30) == []
    assert plan.dtype == "float32", "weights that the optimizer changes"
    assert plan.data.engine.dtype == "bfloat16"


@pytest.mark.parametrize("name", ["paper/single_teacher", "paper/multi_teacher", "paper/strong_to_weak"])
def test_one_card_is_too_small_for_the_paper_and_a_remedy_fits(monkeypatch, folder, name):
    card = 80 * 2**30
    plan = on_gpus(plan_of(monkeypatch, folder, name), 1)
    assert any("the rollout phase needs" in text for text in shortages(plan, card))
    remedy = cheapest_remedy(plan, card)
    assert shortages(remedy.plan, card) == []
    apart = ("--gpus", "--model.optimizer=torchao.")  # an extra
    settings = [argument for argument in remedy.arguments if not argument.startswith(apart)]
    changed = replace(plan_of(monkeypatch, folder, name, *settings), optimizer=remedy.plan.optimizer)
    changed = replace(changed, processes=changed.processes.on_gpus(remedy.plan.processes.world_size))
    assert shortages(changed, card) == [], remedy.arguments
    assert changed.sharding == remedy.plan.sharding
    assert changed.data.engine == remedy.plan.data.engine


def test_a_larger_student_fits_a_small_card_with_8_bit_states_or_in_host_memory(monkeypatch, folder):
    card, small = 24 * 2**30, plan_of(monkeypatch, folder, "hardware/one_24gb_card")
    plan = replace(on_gpus(small, 1), student=str(folder / "1.7B"))
    remedy = cheapest_remedy(plan, card)
    settings = ("--model.sharding.offload_teachers=true", "--model.optimizer=torchao.optim.AdamW8bit")
    assert remedy.arguments[-2:] == settings
    held = replace(plan, sharding=Sharding(offload_student=True), processes=plan.processes.on_gpus(1, sharded=True))
    for phase in memory_phases(held, card):
        assert not any(part.size for part in phase.parts if part.name.startswith("student:"))
    (size,) = (part.size for part in host_parts(held) if part.name == "student")
    assert size == count_parameters(MODELS["1.7B"]) * (4 + 4 + 8), "weights, gradients, two states of AdamW"


def test_weights_in_host_memory_cost_transfers_and_a_copy_for_checkpoints(monkeypatch, folder):
    """Two passes read 4 bytes a parameter and one returns the gradients, for each micro-batch."""
    plan, card = on_gpus(plan_of(monkeypatch, folder, "hardware/one_24gb_card_offload"), 1), find_card("RTX4090")
    count, small = count_parameters(MODELS["4B"]), replace(plan, budgets=replace(plan.budgets, token_budget=2048))

    def parts(plan):
        return {part.name: part for part in step_seconds(plan, card, 24 * 2**30, 512)}

    found = parts(small)
    rounds = int(found["update"].formula.split("; ")[1].split()[0])
    assert found["update"].seconds == pytest.approx(rounds * 3 * 4 * count / (card.host * 1e9 * 0.6), rel=1e-6)
    assert found["optimizer on the host"].seconds == pytest.approx(32 * count / 50e9, rel=1e-6)
    assert parts(replace(small, sharding=Sharding()))["update"].seconds < found["update"].seconds / 2
    assert parts(plan)["update"].seconds < found["update"].seconds / 2, "fewer and larger micro-batches"
    kept = replace(plan, processes=replace(plan.processes, background_checkpoints=True))
    more = {part.name: part.size for part in host_parts(kept)}["checkpoint"]
    assert more == 2 * 12 * count, "weights and two states, in pinned memory"


def test_experts_reach_a_smaller_share_of_the_peak_rate(monkeypatch, folder):
    """Half of the rows for each teacher: 2 operations a parameter and token, without the attention."""
    plan, card = on_gpus(plan_of(monkeypatch, folder, "hardware/eight_80gb_cards"), 1), find_card("H100")
    found = {part.name: part.seconds for part in step_seconds(plan, card, 80 * 2**30, 512)}
    tokens = plan.data.trajectories * 512 / 2
    rates = {"math": 0.35, "code": 0.2}
    for name, parameters in {"math": 32e9, "code": 3e9}.items():
        least = 2 * parameters * tokens / (card.tflops * 1e12 * rates[name])
        assert least < found[f"teacher {name}"] < 1.25 * least


def test_active_parameters_are_the_published_ones():
    """37 B of 671 B, without the input embedding; 3.3 B of 30.5 B."""
    assert active_parameters(DeepseekV3Config()) / 1e9 == pytest.approx(37.5 - 129280 * 7168 / 1e9, rel=0.01)
    assert active_parameters(MODELS["30B-A3B"]) / 1e9 == pytest.approx(3.35 - 151936 * 2048 / 1e9, rel=0.01)


def test_replicated_models_of_the_paper_do_not_fit(monkeypatch, folder):
    plan = on_gpus(plan_of(monkeypatch, folder, "paper/multi_teacher", "--trainer.strategy=ddp"), 8)
    update = next(phase for phase in memory_phases(plan, 80 * 2**30) if phase.name == "update")
    assert update.total > 80 * 2**30
    remedy = cheapest_remedy(plan, 80 * 2**30)
    assert remedy.plan.processes.sharded
    assert remedy.plan.processes.world_size == 8
    assert "--trainer.strategy=FSDP2Strategy" in remedy.arguments

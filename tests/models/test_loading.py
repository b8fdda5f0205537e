"""Loading of models by name, and errors for names without a model."""

import json
import shutil

import pytest

from fireopd.errors import UserError
from fireopd.models.loading import EMBEDDED, load_causal_lm, load_config, load_tokenizer, resolve


@pytest.fixture
def with_code(tmp_path):
    """Model folder with custom code that creates a file when it is executed."""
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "student", folder)
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": auto}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    return folder


@pytest.mark.parametrize("load", [load_config, lambda name, key: load_causal_lm(name, key, "float32")])
def test_custom_model_code_is_not_executed(with_code, tmp_path, load):
    with pytest.raises(UserError, match="model.student: '.*': it requires custom code, which is never executed"):
        load(str(with_code), "model.student")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny/nope", "no embedded model of that name. Use one of tiny/code"),
        ("./nowhere", "no such folder"),
        ("tests", "the folder holds no config.json"),
    ],
)
def test_names_without_a_model_are_rejected(name, message):
    for load in (load_config, load_tokenizer):
        with pytest.raises(UserError, match=message):
            load(name, "model.student")


@pytest.mark.parametrize("name", ["./x", "~/x", "/x/y", "a/b/c", "models/my-student", "runs/x", "here/student"])
def test_a_missing_folder_is_named_without_a_look_at_the_hub(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=f"model.student: '{name}': no such folder. Give a model folder"):
        resolve(name, "model.student")


def test_a_checkpoint_is_exported_first(tmp_path):
    path = tmp_path / "last.ckpt"
    path.touch()
    with pytest.raises(UserError, match="not a model. Export its student first: fireopd export"):
        resolve(str(path), "MODEL")


def test_a_configuration_is_read_again_after_a_change(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    settings = json.loads((EMBEDDED / "student" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings))
    first = load_config(str(folder), "x")
    first.hidden_size = 0
    assert load_config(str(folder), "x").hidden_size == settings["hidden_size"], "callers do not share it"
    (folder / "config.json").write_text(json.dumps(settings | {"hidden_size": 4096}))
    assert load_config(str(folder), "x").hidden_size == 4096

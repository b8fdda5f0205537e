"""Models by name: what is no model, or more than one, is refused in a sentence."""

import json
import shutil

import pytest

from fireopd.errors import UserError
from fireopd.models.loading import EMBEDDED, load_causal_lm, load_config, load_tokenizer


@pytest.fixture
def with_code(tmp_path):
    """A model folder whose configuration names a class in a file of its own, which leaves a mark when it is run."""
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "student", folder)
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": auto}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    return folder


@pytest.mark.parametrize("load", [load_config, lambda name, key: load_causal_lm(name, key, "float32")])
def test_code_that_a_model_brings_is_not_run(with_code, tmp_path, load):
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
def test_what_is_no_model_is_refused(name, message):
    for load in (load_config, load_tokenizer):
        with pytest.raises(UserError, match=message):
            load(name, "model.student")

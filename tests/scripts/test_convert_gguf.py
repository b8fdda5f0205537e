"""The script that converts GGUF files: weights, tokenizer, parts, errors."""

import runpy
import sys

import gguf
import pytest
import torch
from helpers.paths import ROOT
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from fireopd.errors import UserError

LETTERS = sorted(ByteLevel.alphabet())
MERGES = [("\u0120", "\u0120"), ("\u0120", "a")]
TOKENS = [*LETTERS, *("".join(pair) for pair in MERGES), "<end>"]
SIZES = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "convert_gguf.py"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, vocab_size=len(TOKENS), max_position_embeddings=64))


def write(path, model, pre, leave_out=()):
    """Write the file of a small model and a byte-level tokenizer."""
    writer, config = gguf.GGUFWriter(path, "qwen2"), model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 1) + [3])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_eos_token_id(len(TOKENS) - 1)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if own not in leave_out:
            writer.add_tensor(own, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "whole.gguf", model, "smollm")


def test_the_parts_of_a_file_become_the_folder_of_its_model(script, model, whole, tmp_path):
    data = whole.read_bytes()
    parts = [tmp_path / f"part{number}" for number in range(3)]
    for part, start in zip(parts, (0, 700, 9000), strict=True):
        part.write_bytes(data[start : {0: 700, 700: 9000}.get(start)])
    script["convert"](parts, tmp_path / "out")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not hasattr(read.config, "quantization_config")
    assert read.config.rms_norm_eps == model.config.rms_norm_eps
    assert read.generation_config.eos_token_id == len(TOKENS) - 1
    states = read.state_dict()
    assert all(torch.equal(states[name], weight) for name, weight in model.state_dict().items())
    split = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode("a  12<end>").tokens
    assert split == ["a", "\u0120\u0120", "1", "2", "<end>"], "digits are split first"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (tokenizer.eos_token, tokenizer.model_max_length) == ("<end>", 64)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "part0", "part1", "part2"]


def test_a_pre_tokenizer_that_the_loader_does_not_know_needs_another_tokenizer(script, model, tmp_path):
    path = write(tmp_path / "new.gguf", model, "brand-new")
    with pytest.raises(UserError, match="'brand-new' is unknown. Name a folder or hub model with the tokenizer"):
        script["convert"]([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_incomplete_file_is_refused(script, model, whole, tmp_path):
    path = write(tmp_path / "less.gguf", model, "qwen2", leave_out=("output_norm.weight",))
    with pytest.raises(UserError, match="1 weights are missing"):
        script["convert"]([path], tmp_path / "out")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be converted"):
        script["convert"]([cut], tmp_path / "out")


@pytest.mark.parametrize(
    ("data", "problem"), [(None, "no such file"), (b"PK", "not the start of a GGUF file"), (b"GGUF", "OUT")]
)
def test_wrong_files_are_one_line_with_exit_code_2(script, tmp_path, monkeypatch, capsys, data, problem):
    path = tmp_path / "model.gguf"
    if data is not None:
        path.write_bytes(data)
    out = tmp_path if problem == "OUT" else tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["convert_gguf.py", str(path), str(out)])
    with pytest.raises(SystemExit, match="2"):
        script["main"]()
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1

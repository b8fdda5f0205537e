r"""Conversion of a GGUF model to a Hugging Face folder: `python scripts/convert_gguf.py MODEL.gguf OUT`.

OUT holds weights (safetensors), config, generation config, tokenizer and chat template. Several files are the parts of
one GGUF file, in order: `python scripts/convert_gguf.py part1 part2 part3 OUT`. Quantized weights are dequantized; the
loader is that of transformers, which needs `pip install gguf accelerate`.
"""

import argparse
import shutil
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from unittest.mock import patch

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fireopd.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAGIC = b"GGUF"
"""First bytes of a GGUF file."""
PRE = "tokenizer.ggml.pre"
"""Field that names the pre-tokenizer."""
SPLIT_DIGITS = ("smollm", "starcoder", "refact", "command-r")
"""Pre-tokenizers that split digits before GPT-2's pattern, unknown to transformers' loader."""
KNOWN = (
    *("default", "gpt-2", "qwen2", "deepseek-r1-qwen", "qwen35", "llama3", "llama-v3", "llama-bpe", "falcon3"),
    *("smaug-bpe", "dbrx", "tekken", "gpt-4o", "llama4"),
)
"""Pre-tokenizers that transformers' loader applies."""
ERRORS = (OSError, ValueError, KeyError, IndexError, ImportError, NotImplementedError)
"""Errors of the loader for damaged and unsupported files."""


def convert(parts: Sequence[Path], out: Path, dtype: str = "float32", tokenizer: str | None = None) -> None:
    """Write the model of a GGUF file to a folder.

    Args:
        parts: the file, or its parts in order.
        out: folder to write.
        dtype: dtype of the weights.
        tokenizer: folder or hub name of the tokenizer; None for the one in the file.

    Raises:
        UserError: if a package is missing, or the file cannot be read or is not supported.
    """
    gguf = load_reader(str(parts[0]))
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        path = join_parts(parts, Path(scratch))
        made = Path(scratch, "made")
        try:
            with patch.object(gguf, "GGUFReader", cache(gguf.GGUFReader)):  # the loader parses the file three times
                loaded = AutoTokenizer.from_pretrained(tokenizer) if tokenizer else load_tokenizer(path)
                load_model(path, DTYPES[dtype]).save_pretrained(made)
        except ERRORS as error:
            if isinstance(error, UserError):
                raise
            problem = f"cannot be converted ({(str(error).splitlines() or [type(error).__name__])[0]})"
            raise UserError("FILE", str(parts[0]), problem, "give all parts in order, or another file") from error
        loaded.save_pretrained(made)
        made.rename(out)


def load_reader(file: str) -> ModuleType:
    """Return the package that reads GGUF files.

    Raises:
        UserError: if it, or the package that transformers' loader needs with it, is not installed.
    """
    try:
        import_module("accelerate")
        return import_module("gguf")
    except ModuleNotFoundError as error:
        problem = f"needs the package {error.name}, which is not installed"
        raise UserError("FILE", file, problem, "run `pip install gguf accelerate`") from error


def join_parts(parts: Sequence[Path], scratch: Path) -> Path:
    """Return a link to the only part, or a file of all parts.

    Raises:
        UserError: if a part does not exist, or the first one is not the start of a GGUF file.
    """
    for part in parts:
        if not part.is_file():
            raise UserError("FILE", str(part), "no such file", "give the path of a GGUF file, or of its parts")
    with parts[0].open("rb") as first:
        if first.read(len(MAGIC)) != MAGIC:
            raise UserError("FILE", str(parts[0]), "not the start of a GGUF file", "give the parts in order")
    path = scratch / "model.gguf"
    if len(parts) == 1:
        path.symlink_to(parts[0].resolve())
        return path
    with path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole, 2**24)
    return path


def load_model(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Return the dequantized model.

    Raises:
        UserError: if the file lacks weights of the model.
    """
    model, report = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, output_loading_info=True
    )
    lacking = sorted(report["missing_keys"])
    if lacking:
        problem = f"{len(lacking)} weights are missing, the first is {lacking[0]}"
        raise UserError("FILE", path.name, problem, "give a complete file of a causal language model")
    model.hf_quantizer = None  # its weights are dequantized, and may be saved
    for name in ("quantization_config", "_model_name_or_path", "unk_token_id"):
        vars(model.config).pop(name, None)
    for name, value in model.config.to_dict().items():
        if name.endswith("_eps") and isinstance(value, float):
            setattr(model.config, name, float(f"{value:.6g}"))  # stored as float32
    return model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the file, with the pre-tokenizer that the file names.

    Raises:
        UserError: if the pre-tokenizer is unknown: the loader would silently split text in another way.
    """
    import gguf

    fields = gguf.GGUFReader(str(path)).fields
    model, kind = (fields[name].contents() if name in fields else "" for name in ("tokenizer.ggml.model", PRE))
    if model == "gpt2" and kind not in (*SPLIT_DIGITS, *KNOWN):
        remedy = "name a folder or hub model with the tokenizer: --tokenizer NAME"
        raise UserError("FILE", path.name, f"its pre-tokenizer {kind!r} is unknown", remedy)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if model == "gpt2" and kind in SPLIT_DIGITS:
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    context = [field.contents() for name, field in fields.items() if name.endswith(".context_length")]
    tokenizer.model_max_length = context[0] if context else tokenizer.model_max_length
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def main() -> None:
    """Convert the file; exit with code 2 for invalid arguments or a missing package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="GGUF file, or its parts in order")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of the weights (default: float32)")
    parser.add_argument("--tokenizer", metavar="NAME", help="folder or hub name of the tokenizer (default: the file's)")
    options = parser.parse_args()
    try:
        if options.out.exists():
            raise UserError("OUT", str(options.out), "already exists", "choose another folder, or remove it")
        convert(options.files, options.out, options.dtype, options.tokenizer)
    except (UserError, OSError) as error:
        parser.exit(2, f"convert_gguf: {error}\n")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()

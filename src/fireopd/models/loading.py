"""Loading of causal language models by name: a local folder, a hub name, or an embedded model (`tiny/student`)."""

import os
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import MissingResourceError, UserError
from fireopd.models.grouped_query_attention import use_grouped_query_attention
from fireopd.models.hub_names import check_hub_name

__all__ = [
    "EMBEDDED",
    "Dtype",
    "check_weights",
    "context_length",
    "disable_dropout",
    "encode_chats",
    "load_causal_lm",
    "load_config",
    "load_tokenizer",
    "resolve",
    "same_model",
    "stop_tokens",
    "vocabulary_size",
]

Dtype = Literal["float32", "bfloat16", "float16"]
"""Dtype of the parameters of a model."""

FOLDERS = ("checkpoints", "models", "runs")
"""First parts of names that are taken for folders, whether they exist or not."""
EMBEDDED = Path(__file__).parents[1] / "tiny"
"""Folder of the embedded models."""


def resolve(name: str, key: str) -> str:
    """Return what transformers can load: the folder of an embedded model, a local folder, or a hub name.

    Args:
        name: name from the configuration.
        key: setting that holds the name, for error messages.

    Raises:
        UserError: if no embedded model has this name, or the path does not contain a model.
    """
    if name.startswith("tiny/"):
        known = sorted(f"tiny/{folder.name}" for folder in EMBEDDED.iterdir() if (folder / "config.json").is_file())
        if name not in known:
            raise UserError(key, name, "no embedded model of that name", f"use one of {', '.join(known)}")
        return str(EMBEDDED / name.removeprefix("tiny/"))
    folder = Path(name).expanduser()
    if folder.suffix == ".ckpt" and folder.exists():
        remedy = f"export its student first: fireopd export {name} OUT"
        raise UserError(key, name, "it is a checkpoint of a run, not a model", remedy)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(key, name, "the folder holds no config.json", "give a folder written by save_pretrained")
    if folder.is_dir():
        return str(folder)
    if _looks_like_path(name):
        raise UserError(key, name, "no such folder", "give a model folder, a hub name or tiny/student")
    return name


def _looks_like_path(name: str) -> bool:
    """Return whether a name is that of a local folder: hub names are `name` or `organisation/name`."""
    first, slash, _ = name.partition("/")
    in_folder = bool(slash) and (first in FOLDERS or Path(first).is_dir())
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or in_folder


def same_model(name: str, other: str, key: str) -> bool:
    """Return whether two names are those of one model.

    Raises:
        UserError: see `resolve`.
    """
    return os.path.realpath(resolve(name, key)) == os.path.realpath(resolve(other, key))


def load_config(name: str, key: str) -> PreTrainedConfig:
    """Load the configuration of a model without its weights; the file is read again only if it has changed.

    Raises:
        UserError: if it cannot be loaded.
    """
    place = Path(resolve(name, key)) / "config.json"
    return deepcopy(_config(name, key, _version(place) if place.is_file() else None))


@lru_cache(maxsize=64)
def _config(name: str, key: str, version: tuple[int, ...] | None) -> PreTrainedConfig:
    return _from_pretrained(AutoConfig, name, key)


def _version(file: Path) -> tuple[int, ...]:
    state = file.stat()
    return state.st_mtime_ns, state.st_size, state.st_ino


def load_tokenizer(name: str, key: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        UserError: if it cannot be loaded or has no end-of-sequence token.
    """
    tokenizer = _from_pretrained(AutoTokenizer, name, key)
    if tokenizer.eos_token_id is None:
        raise UserError(
            key, name, "its tokenizer has no end-of-sequence token", "set eos_token in tokenizer_config.json"
        )
    return tokenizer


def encode_chats(
    tokenizer: PreTrainedTokenizerBase, chats: list[list[dict[str, str]]], options: dict[str, Any]
) -> list[tuple[int, ...]]:
    """Return the token ids of each chat, rendered with the chat template and followed by the generation prompt.

    With the option `continue_final_message`, a chat that ends with a message of the assistant is continued within that
    message instead: the template does not close it, and no generation prompt follows.
    """
    others = {name: value for name, value in options.items() if name != "continue_final_message"}
    continues = bool(options.get("continue_final_message"))
    within = [continues and chat[-1]["role"] == "assistant" for chat in chats]
    encoded = {}
    for kind in set(within):
        settings = {"add_generation_prompt": not kind, "continue_final_message": kind} | others
        part = [chat for chat, own in zip(chats, within, strict=True) if own is kind]
        result: Any = tokenizer.apply_chat_template(part, return_dict=True, **settings)
        encoded[kind] = iter(result["input_ids"])
    return [tuple(next(encoded[kind])) for kind in within]


def load_causal_lm(name: str, key: str, dtype: Dtype, device: torch.device | None = None) -> PreTrainedModel:
    """Load a causal language model with parameters of the given dtype, on the CPU by default.

    In the whole process, the attention `sdpa` becomes `grouped_query_attention`.

    Raises:
        UserError: if it cannot be loaded.
    """
    use_grouped_query_attention()
    model: torch.nn.Module = _from_pretrained(AutoModelForCausalLM, name, key, dtype=getattr(torch, dtype))
    return cast(PreTrainedModel, model if device is None else model.to(device))


def check_weights(name: str, key: str) -> None:
    """Check that a local folder holds weights; those of the hub are not looked for.

    Raises:
        MissingResourceError: if there are none.
    """
    folder = Path(resolve(name, key))
    if folder.is_dir() and not any(next(folder.glob(kind), None) for kind in ("*.safetensors", "*.bin")):
        remedy = "give a folder written by save_pretrained"
        raise MissingResourceError(key, name, "the folder holds no weights", remedy)


def _from_pretrained(factory: Any, name: str, key: str, **settings: Any) -> Any:
    place = resolve(name, key)
    if not Path(place).is_dir():
        check_hub_name(place, key)
    try:
        return factory.from_pretrained(place, trust_remote_code=False, **settings)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            remedy = "use a model whose architecture is part of transformers"
            raise UserError(key, name, "it requires custom code, which is never executed", remedy) from error
        problem = f"could not be loaded ({str(error).splitlines()[0]})"
        remedy = "give a folder written by save_pretrained, or a hub name with the hub reachable"
        raise UserError(key, name, problem, remedy) from error


def disable_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Set all dropout probabilities to 0 in place and return the model.

    The updated policy must be identical to the policy that sampled and was scored.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
    return model


def stop_tokens(name: str, key: str, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the token ids that end a response, from the generation config and the tokenizer."""
    eos_token: Any = tokenizer.eos_token_id
    stops = {eos_token}
    try:
        configured = GenerationConfig.from_pretrained(resolve(name, key)).eos_token_id
    except OSError:
        return frozenset(stops)
    return frozenset(stops | set([configured] if isinstance(configured, int) else configured or []))


def context_length(name: str, key: str) -> int | None:
    """Return the maximum sequence length of a model, or None if its configuration does not define one."""
    config = load_config(name, key).get_text_config()
    return config.max_position_embeddings if "max_position_embeddings" in config.to_dict() else None


def vocabulary_size(name: str, key: str) -> int:
    """Return the number of outputs of a model, paddings included."""
    return int(load_config(name, key).get_text_config().vocab_size)

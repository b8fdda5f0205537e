"""Causal language models by name: a Hugging Face folder, a hub name, or an embedded model (`tiny/student`)."""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError

Dtype = Literal["float32", "bfloat16", "float16"]
"""Type of a model's parameters."""

EMBEDDED = Path(__file__).parents[1] / "tiny"
"""The folder of the embedded models."""


def resolve(name: str, key: str) -> str:
    """Return what transformers is to load: the folder of an embedded model, a local folder, or a hub name.

    Args:
        name: as the user wrote it.
        key: the setting that it comes from, for error messages.

    Raises:
        UserError: if the name is that of no embedded model, or a path at which there is no model.
    """
    if name.startswith("tiny/"):
        known = sorted(f"tiny/{folder.name}" for folder in EMBEDDED.iterdir() if (folder / "config.json").is_file())
        if name not in known:
            raise UserError(key, name, "no embedded model of that name", f"the embedded models are {', '.join(known)}")
        return str(EMBEDDED / name.removeprefix("tiny/"))
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(key, name, "the folder holds no config.json", "give a folder written by save_pretrained")
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not folder.is_dir():
        raise UserError(key, name, "no such folder", "give a model folder, a hub name or tiny/student")
    return str(folder) if folder.is_dir() else name


def load_config(name: str, key: str) -> PreTrainedConfig:
    """Return a model's configuration, without its weights.

    Raises:
        UserError: if there is none to be had.
    """
    return _from_pretrained(AutoConfig, name, key)


def load_tokenizer(name: str, key: str) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer.

    Raises:
        UserError: if there is none to be had.
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
    """Return the token ids of each chat and of what opens the answer, as the tokenizer's chat template has it."""
    encoded: Any = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True, **options)
    return [tuple(tokens) for tokens in encoded["input_ids"]]


def load_causal_lm(name: str, key: str, dtype: Dtype, device: torch.device | None = None) -> PreTrainedModel:
    """Return a causal language model with parameters of the given type, on the CPU if no device is named.

    Raises:
        UserError: if there is none to be had.
    """
    model: torch.nn.Module = _from_pretrained(AutoModelForCausalLM, name, key, dtype=getattr(torch, dtype))
    return cast(PreTrainedModel, model if device is None else model.to(device))


def _from_pretrained(factory: Any, name: str, key: str, **settings: Any) -> Any:
    try:
        return factory.from_pretrained(resolve(name, key), trust_remote_code=False, **settings)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            remedy = "give a model whose architecture transformers itself has"
            raise UserError(key, name, "it brings code of its own, which is not run", remedy) from error
        problem = f"could not be loaded ({str(error).splitlines()[0]})"
        remedy = "give a folder written by save_pretrained, or a hub name while the hub can be reached"
        raise UserError(key, name, problem, remedy) from error


def disable_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Switch dropout off for good: the policy that is updated must be the one that sampled and was scored."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, 0.0)
    return model


def stop_tokens(name: str, key: str, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the token ids that end a response: those of the generation config and the tokenizer's own."""
    own: Any = tokenizer.eos_token_id
    stops = {own}
    try:
        configured = GenerationConfig.from_pretrained(resolve(name, key)).eos_token_id
    except OSError:
        return frozenset(stops)
    return frozenset(stops | set([configured] if isinstance(configured, int) else configured or []))


def context_length(name: str, key: str) -> int | None:
    """Return how many tokens a model can attend to, if its configuration says so."""
    config = load_config(name, key).get_text_config()
    return config.max_position_embeddings if "max_position_embeddings" in config.to_dict() else None

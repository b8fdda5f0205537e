"""Check of a model's architecture by its configuration, before any weights are loaded."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from fireopd import private_apis
from fireopd.errors import UserError
from fireopd.models.loading import load_config
from fireopd.models.model_size import shapes_of
from fireopd.models.output_head import backbone

__all__ = ["check_architecture", "is_recurrent"]

REMEDY = "use a causal language model of text whose logits are a linear function of its last hidden states"
REFUSED = {"inkling_text": "it removes the paddings of its vocabulary from its logits"}
"""Problem by model type of architectures whose logits are not those of their output layer."""
CAUSAL = ("gpt_neox", "gpt_neox_japanese")
"""Model types that are causal although their configuration has `is_decoder: false`."""


def check_architecture(name: str, key: str) -> None:
    """Check that a model is causal, and gives hidden states and logits. Constructs it without memory.

    The probe of `check_scorer` compares the numbers once the model is loaded.

    Args:
        name: model folder, hub name or embedded model.
        key: setting that holds the name, for the error.

    Raises:
        UserError: if the architecture is not supported, or a package that it needs is not installed.
    """
    config = load_config(name, key)
    problem = REFUSED.get(config.model_type)
    if config.model_type == "mpt" and getattr(config, "logit_scale", None) is not None:
        problem = "transformers ignores its logit_scale"
    try:
        model = None if problem else shapes_of(config)
    except ImportError as error:
        problem = f"{config.model_type} cannot be constructed ({' '.join(str(error).split())[:200]})"
        raise UserError(key, name, problem, "install the package") from error
    except ValueError as error:
        if "Unrecognized configuration" not in str(error):
            return  # loading decides
        problem = f"transformers has no causal language model of the type {config.model_type}"
        raise UserError(key, name, problem, REMEDY) from error
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError):
        return  # it may need real tensors in its constructor
    problem = problem or _problem(model)
    if problem:
        raise UserError(key, name, problem, REMEDY)


def is_recurrent(config: PreTrainedConfig) -> bool:
    """Return whether models of a configuration keep a recurrent state; False for those that cannot be constructed."""
    try:
        return private_apis.is_stateful(shapes_of(config))
    except (AssertionError, AttributeError, ImportError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False


def _problem(model: Any) -> str | None:
    kind = model.config.model_type
    if getattr(model.config, "is_decoder", True) is False and kind not in CAUSAL:
        return f"{kind} also attends to later tokens (is_decoder is false)"
    if not isinstance(getattr(model.get_output_embeddings(), "weight", None), torch.Tensor):
        return f"{kind} has no linear output layer"
    try:
        backbone(model)
    except AttributeError:
        return f"{kind} has no part that computes its last hidden states"
    return None

"""RMSNorm, rotary position embeddings and SwiGLU of a model by the fused Triton kernels of Liger (extra `liger`)."""

from importlib.metadata import version
from inspect import unwrap
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from fireopd.errors import UserError, import_extra

__all__ = ["ARCHITECTURES", "check_liger", "use_liger"]

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose layers compute what the kernels compute: norms without offset, SwiGLU, half rotation."""
ROTATION = "apply_rotary_pos_emb"
"""Function that attention layers of transformers look up in their module."""


def check_liger(key: str, model_type: str) -> None:
    """Check that the layers of an architecture can be replaced, before a model is loaded.

    Args:
        key: setting that asks for it.
        model_type: architecture, as in the configuration of a model.

    Raises:
        UserError: if they cannot, or Liger is not installed.
    """
    if model_type not in ARCHITECTURES:
        problem = f"the layers of {model_type} are not those of {', '.join(ARCHITECTURES)}"
        raise UserError(key, "liger", problem, "set it to triton")
    import_extra("liger_kernel.transformers.functional", "liger", key, "liger")


def use_liger(model: PreTrainedModel, functions: Any = None) -> None:
    """Replace the forward passes of the norms, the MLPs and the rotations of one model; other models stay as they are.

    Modules and parameters keep their names.

    Args:
        model: causal language model of one of `ARCHITECTURES`.
        functions: object with `liger_rms_norm`, `liger_rope` and `liger_swiglu`; those of Liger by default.

    Raises:
        UserError: if an attention layer of the installed transformers rotates by other means.
    """
    own = functions or import_extra("liger_kernel.transformers.functional", "liger", "model.kernels", "liger")
    for module in model.modules():
        kind = type(module)
        if kind.__name__.endswith("RMSNorm"):
            module.forward = _norm(module, own.liger_rms_norm)
        elif kind.__name__.endswith("MLP"):
            module.forward = _mlp(module, own.liger_swiglu)
        elif hasattr(module, "q_proj"):
            module.forward = _attention(module, own.liger_rope)


def _norm(module: Any, rms_norm: Any) -> Any:
    def forward(hidden_states: Tensor) -> Tensor:
        result: Tensor = rms_norm(hidden_states, module.weight, module.variance_epsilon, in_place=False)
        return result

    return forward


def _mlp(module: Any, swiglu: Any) -> Any:
    if not isinstance(module.act_fn, nn.SiLU) and type(module.act_fn).__name__ != "SiLUActivation":
        return module.forward

    def forward(x: Tensor) -> Tensor:
        result: Tensor = module.down_proj(swiglu(module.gate_proj(x), module.up_proj(x)))
        return result

    return forward


def _attention(module: nn.Module, rope: Any) -> Any:
    """Return the forward pass of an attention layer with another function of rotation."""
    forward: Any = unwrap(type(module).forward)  # below decorators that rename arguments
    if ROTATION not in forward.__code__.co_names:
        problem = f"{type(module).__name__} of transformers {version('transformers')} does not call {ROTATION}"
        raise UserError("model.kernels", "liger", problem, "set it to triton")

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        rotated = rope(q, k, cos.to(q.dtype), sin.to(q.dtype))
        return rotated[0], rotated[1]

    plain = FunctionType(
        forward.__code__, forward.__globals__ | {ROTATION: rotate}, None, forward.__defaults__, forward.__closure__
    )
    plain.__kwdefaults__ = forward.__kwdefaults__
    return plain.__get__(module)

"""Memory of one decoder layer, measured on tensors that have shapes and no memory."""

import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedConfig

from fireopd import private_apis
from fireopd.models.model_size import architecture_of
from fireopd.models.output_head import backbone

__all__ = ["LayerBytes", "LiveBytes", "layer_bytes", "scoring_bytes", "shapes_only_attention", "without_values"]

ATTENTION = "fireopd_shapes"
"""Name of the attention of `shapes_only_attention` in transformers."""
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
"""Special tokens of a configuration."""


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Bytes of one decoder layer in an update of a micro-batch, without its parameters and their gradients."""

    boundary: int
    """Input of the layer: what gradient checkpointing saves."""
    saved: int
    """Activations that are saved for the backward pass, the input included."""
    norm: int
    """Activations that the last norm saves, its input and output included."""
    backward: int
    """Peak of a forward pass that saves activations and the backward pass after it, the input included."""


class LiveBytes(private_apis.TorchDispatchMode):
    """Mode that counts the bytes of the tensors that are created in it and still exist."""

    def __init__(self) -> None:
        """Start with no tensors."""
        super().__init__()
        self.bytes = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count the storages of its results that no operand has."""
        for storage in _storages((args, kwargs)):
            self.known.setdefault(storage, 0)
        results = func(*args, **kwargs or {})
        for storage in _storages(results):
            if storage not in self.known:
                self.known[storage] = size = storage.nbytes()
                self.bytes += size
                weakref.finalize(storage, self._freed, size)
        self.peak = max(self.peak, self.bytes)
        return results

    def _freed(self, size: int) -> None:
        self.bytes -= size


def _storages(values: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in private_apis.tree_leaves(values) if isinstance(leaf, Tensor)]


def shapes_only_attention(*, gpu: bool) -> str:
    """Register the attention of measurements in transformers, and return its name.

    It has the memory of flash attention. On a GPU, in float32 with fewer key than query heads, keys and values are
    repeated, as by `grouped_query_attention`.
    """

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **settings: Any) -> Any:
        """Return the output [B, T, heads, size], and None for the probabilities."""
        if torch.is_autocast_enabled("cpu"):
            query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
        if gpu and query.dtype == torch.float32 and key.shape[1] != query.shape[1]:
            key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for part in (key, value))
        attended = private_apis.shapes_of_flash_attention(query, key, value, settings.get("scaling"))
        return attended.transpose(1, 2), None

    name = f"{ATTENTION}_{'gpu' if gpu else 'cpu'}"
    AttentionInterface.register(name, attend)
    return name


@contextmanager
def without_values(model: nn.Module) -> Iterator[None]:
    """Context in which tensors have no values; the parameters and buffers of a meta model become such tensors.

    They are on the CPU, since autocast does not know the meta device.
    """
    known: dict[int, nn.Parameter] = {}
    with private_apis.FakeTensorMode():
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                setattr(module, name, known.setdefault(id(parameter), nn.Parameter(empty)))
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
        yield


def layer_bytes(
    config: PreTrainedConfig,
    rows: int,
    length: int,
    dtype: torch.dtype,
    *,
    autocast: torch.dtype | None = None,
    gpu: bool = True,
) -> LayerBytes:
    """Measure one decoder layer in an update of a micro-batch; nothing is computed.

    Args:
        config: of a causal language model whose layers are alike.
        rows: rows of the micro-batch.
        length: tokens of a row.
        dtype: dtype of the parameters in the forward pass.
        autocast: dtype of autocast; None without.
        gpu: True for the attention kernels of a GPU.
    """
    return _update(_Layers.of(config, dtype, gpu=gpu), rows, length, autocast)


def scoring_bytes(
    config: PreTrainedConfig,
    rows: int,
    length: int,
    dtype: torch.dtype,
    *,
    autocast: torch.dtype | None = None,
    gpu: bool = True,
) -> int:
    """Return the peak of one decoder layer in a forward pass without gradients, its input included, bytes.

    The arguments are those of `layer_bytes`.
    """
    return _scoring(_Layers.of(config, dtype, gpu=gpu), rows, length, autocast)


class _Layers(NamedTuple):
    """Decoder layers of a model, as the key of their measurements."""

    kind: Any
    settings: str
    dtype: torch.dtype
    gpu: bool

    @classmethod
    def of(cls, config: PreTrainedConfig, dtype: torch.dtype, *, gpu: bool) -> "_Layers":
        """Return the layers of a model."""
        text: Any = config.get_text_config()  # a multimodal config would build the image encoder too
        return cls(type(text), architecture_of(text), dtype, gpu)

    def model(self, layers: int) -> Any:
        """Return a model of some layers, with shapes and without memory."""
        fields = json.loads(self.settings) | {"vocab_size": 8, "num_hidden_layers": layers}
        # Settings by layer, and tokens outside the small vocabulary, of which transformers would warn.
        fields |= {name: None for name in ("layer_types", *TOKENS) if name in fields}
        with torch.device("meta"):
            name = shapes_only_attention(gpu=self.gpu)
            config = self.kind.from_dict(fields)
            return AutoModelForCausalLM.from_config(config, dtype=self.dtype, attn_implementation=name).train()


@cache
def _scoring(layers: _Layers, rows: int, length: int, autocast: torch.dtype | None) -> int:
    model = layers.model(1)
    with _computing(model, autocast), torch.no_grad(), LiveBytes() as live:
        backbone(model)(input_ids=torch.empty(rows, length, dtype=torch.int64), use_cache=False)
    return live.peak


@cache
def _update(layers: _Layers, rows: int, length: int, autocast: torch.dtype | None) -> LayerBytes:
    one, two = layers.model(1), layers.model(2)
    both = _saved(two, rows, length, autocast)

    def release(parameter: Tensor) -> None:
        parameter.grad = None

    with _computing(one, autocast):
        tokens = torch.empty(rows, length, dtype=torch.int64)
        for parameter in one.parameters():
            parameter.register_post_accumulate_grad_hook(release)
        with torch.no_grad():
            boundary = one.get_input_embeddings()(tokens).nbytes
        with LiveBytes() as live:
            hidden = backbone(one)(input_ids=tokens, use_cache=False).last_hidden_state
            saved = live.bytes
            gradient = torch.empty_like(hidden)
            hidden.backward(gradient)
    own = both - saved
    return LayerBytes(boundary, own, saved - own, live.peak)


def _saved(model: Any, rows: int, length: int, autocast: torch.dtype | None) -> int:
    """Return the bytes of the activations that a forward pass saves, its result included."""
    with _computing(model, autocast), LiveBytes() as live:
        hidden = backbone(model)(input_ids=torch.empty(rows, length, dtype=torch.int64), use_cache=False)
        saved = live.bytes
        del hidden
    return saved


@contextmanager
def _computing(model: nn.Module, autocast: torch.dtype | None) -> Iterator[None]:
    """Context of a measurement: on the meta device, which is faster, or on the CPU with autocast."""
    if autocast is None:
        with torch.device("meta"):
            yield
    else:
        with without_values(model), torch.autocast("cpu", autocast, cache_enabled=False):
            yield

"""An estimate of what a process of a run will hold in memory, part by part, before anything is loaded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from fireopd.distributed.fsdp import FSDP2Strategy
from fireopd.models.loading import load_config
from fireopd.teachers import HFTeacher
from fireopd.training.data import RolloutDataModule

if TYPE_CHECKING:
    from fireopd.training.module import FiReOPDModule

LOGITS_COPIES = 2
"""How often a chunk's logits stand in memory at once: as the model gives them, and in float32."""
COMPARED_COPIES = 6
"""The same where distributions are compared: those of both models and what a divergence makes of them."""
PROBE_TOKENS = 64
"""Tokens with which the activations of one layer are counted."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is held in memory."""

    name: str
    """What it is."""
    size: int
    """Bytes."""
    made_of: str
    """What it is computed from, for a person to check."""


def estimate(module: "FiReOPDModule", data: RolloutDataModule) -> list[Part]:
    """Return what one process holds, as far as it can be known: student, teachers, engine, the update of one batch."""
    config = load_config(module.student_name, "model.student")
    width, shards = dtype_size(module.dtype_name), _shards(module)
    parameters = count_parameters(config)
    over = f" / {shards} processes" if shards > 1 else ""
    slots = optimizer_bytes(module.make_optimizer)
    shown = f"{parameters / 1e6:.1f} M parameters"
    parts = [
        Part("student: weights", parameters * width // shards, f"{shown} x {width} B{over}"),
        Part("student: gradients", parameters * width // shards, f"{shown} x {width} B{over}"),
        Part("student: optimizer", parameters * slots // shards, f"{shown} x {slots} B{over}"),
        *_teachers(module, shards, over),
        *_update(module, data, config),
    ]
    rows = -(-data.batch_size // module.trainer.world_size) * data.responses_per_prompt
    engine = data.engine.memory(parameters, cache_per_token(config), rows, _longest(data))
    return [*parts, *(Part(f"rollouts: {name}", size, how) for name, (size, how) in engine.items())]


def available(device: torch.device) -> int:
    """Return the bytes of the device, or of this machine's memory for the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) * 1024


def dtype_size(dtype: str) -> int:
    """Return the bytes of one number."""
    return torch.empty(0, dtype=getattr(torch, dtype)).element_size()


def count_parameters(config: PreTrainedConfig) -> int:
    """Return the number of a model's parameters, tied ones counted once; nothing is allocated."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def optimizer_bytes(make_optimizer: Callable[[Iterable[Tensor]], Any]) -> int:
    """Return the bytes that an optimizer keeps for each parameter, found by one step on a small one."""
    parameter = nn.Parameter(torch.zeros(1024))
    parameter.grad = torch.ones(1024)
    optimizer = make_optimizer([parameter])
    optimizer.step()
    state = optimizer.state[parameter].values()
    return sum(x.numel() * x.element_size() for x in state if isinstance(x, Tensor) and x.numel() == 1024) // 1024


def cache_per_token(config: PreTrainedConfig) -> int:
    """Return the numbers that attention keeps for a token: a key and a value of every head in every layer."""
    text: Any = config.get_text_config()
    fields = text.to_dict()
    heads = fields.get("num_key_value_heads") or text.num_attention_heads
    size = fields.get("head_dim") or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * size


def activations_per_token(config: PreTrainedConfig) -> int:
    """Return the bytes that one layer keeps for the backward pass of a token, in float32: counted with one layer."""
    text: Any = config.get_text_config()  # of a model that reads images too, the whole would be made
    fields = text.to_dict() | {"num_hidden_layers": 1, "vocab_size": 8}
    fields |= {name: None for name in ("layer_types", "pad_token_id") if name in fields}
    model: Any = AutoModelForCausalLM.from_config(type(text).from_dict(fields))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        """Take down the storage of what is kept, parameters left out."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.base_model(torch.zeros(1, PROBE_TOKENS, dtype=torch.int64), use_cache=False).last_hidden_state
    del hidden
    return sum(kept.values()) // PROBE_TOKENS


def _shards(module: "FiReOPDModule") -> int:
    return module.trainer.world_size if isinstance(module.trainer.strategy, FSDP2Strategy) else 1


def _longest(data: RolloutDataModule) -> int:
    return max(len(prompt.tokens) for prompt in data.training_prompts) + data.engine.max_response_length


def _teachers(module: "FiReOPDModule", shards: int, over: str) -> list[Part]:
    parts = []
    for teacher in dict.fromkeys(map(id, module.teachers.values())):
        names = [name for name, own in module.teachers.items() if id(own) == teacher]
        own = module.teachers[names[0]]
        if isinstance(own, HFTeacher):
            count = count_parameters(load_config(own.path, f"model.teachers.{names[0]}.path"))
            width = dtype_size(own.dtype)
            made_of = f"{count / 1e6:.1f} M parameters x {width} B{over}"
            parts.append(Part(f"teacher {', '.join(names)}: weights", count * width // shards, made_of))
    return parts


def _update(module: "FiReOPDModule", data: RolloutDataModule, config: PreTrainedConfig) -> list[Part]:
    text: Any = config.get_text_config()
    width = dtype_size(module.dtype_name)
    tokens, layers = max(module.token_budget, _longest(data)), text.num_hidden_layers
    layer = activations_per_token(config) * width // 4
    a_token = layer * layers
    made_of = f"{tokens} tokens x {layers} layers x {layer} B"
    if module.gradient_checkpointing:
        a_token = text.hidden_size * width * layers + layer
        made_of = f"{tokens} tokens x ({layers} layers x {text.hidden_size * width} B + {layer} B of one layer)"
    held = min(max(module.chunk_logits, text.vocab_size), tokens * text.vocab_size)
    copies = COMPARED_COPIES if module.compares else LOGITS_COPIES
    chunk = f"{held} logits x 4 B x {copies} copies"
    return [Part("update: activations", tokens * a_token, made_of), Part("update: logits", held * 4 * copies, chunk)]

"""Estimate of the memory of one process of a run, by part, before any model is loaded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from fireopd.models.loading import load_config
from fireopd.models.model_size import count_parameters, dtype_size
from fireopd.teachers import Teacher
from fireopd.training.run_plan import RunPlan

__all__ = [
    "Part",
    "activations_per_token",
    "available",
    "cache_per_token",
    "count_parameters",
    "dtype_size",
    "estimate",
    "optimizer_bytes",
]

LOGITS_COPIES = 2
"""Copies of a chunk's logits in memory at once: the model's output, and the same in float32."""
COMPARED_COPIES = 6
"""Copies where distributions are compared: those of both models and the intermediate results of the divergence."""
PROBE_TOKENS = 64
"""Tokens of the forward pass that measures the activations of one layer."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the memory of a process."""

    name: str
    """Name of the part, for example `student: weights`."""
    size: int
    """Bytes."""
    formula: str
    """Formula of the size."""


def estimate(plan: RunPlan) -> list[Part]:
    """Return the known parts of one process's memory: student, teachers, base model, update on one batch, engine."""
    config = load_config(plan.student, "model.student")
    width, shards = dtype_size(plan.dtype), plan.processes.shards
    parameters = count_parameters(config)
    over = f" / {shards} processes" if shards > 1 else ""
    slots = optimizer_bytes(plan.optimizer)
    shown = f"{parameters / 1e6:.1f} M parameters"
    trained, trained_width, trained_shown = parameters, width, shown
    if plan.adapter is not None:
        trained, trained_width = plan.adapter.size(config), dtype_size("float32")
        trained_shown = f"{trained / 1e6:.1f} M trained parameters"
    parts = [
        Part("student: weights", parameters * width // shards, f"{shown} x {width} B{over}"),
        *_adapter(plan, trained * trained_width // shards, f"{trained_shown} x {trained_width} B{over}"),
        Part("student: gradients", trained * trained_width // shards, f"{trained_shown} x {trained_width} B{over}"),
        Part("student: optimizer", trained * slots // shards, f"{trained_shown} x {slots} B{over}"),
        *_teachers(plan),
        *_update(plan, config),
    ]
    data = plan.data
    rows = -(-data.batch_size // plan.processes.world_size) * data.responses_per_prompt
    engine = data.engine.memory(parameters, cache_per_token(config), rows, data.longest_trajectory)
    return [*parts, *(Part(f"rollouts: {name}", size, formula) for name, (size, formula) in engine.items())]


def available(device: torch.device) -> int:
    """Return the memory of a GPU, or of this machine for the CPU, bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    with open("/proc/meminfo") as file:
        return int(file.readline().split()[1]) * 1024


def optimizer_bytes(make_optimizer: Callable[[Iterable[Tensor]], Any]) -> int:
    """Return the bytes of optimizer state per parameter, measured by one step on a small tensor."""
    parameter = nn.Parameter(torch.zeros(1024))
    parameter.grad = torch.ones(1024)
    optimizer = make_optimizer([parameter])
    optimizer.step()
    state = optimizer.state[parameter].values()
    return sum(x.numel() * x.element_size() for x in state if isinstance(x, Tensor) and x.numel() == 1024) // 1024


def cache_per_token(config: PreTrainedConfig) -> int:
    """Return the numbers in the key-value cache of one token: a key and a value of every head in every layer."""
    text: Any = config.get_text_config()
    fields = text.to_dict()
    heads = fields.get("num_key_value_heads") or text.num_attention_heads
    size = fields.get("head_dim") or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * size


def activations_per_token(config: PreTrainedConfig) -> int:
    """Return the bytes that one layer saves for the backward pass per token, in float32, measured on a single layer."""
    text: Any = config.get_text_config()  # a multimodal config would build the image encoder too
    fields = text.to_dict() | {"num_hidden_layers": 1, "vocab_size": 8}
    fields |= {name: None for name in ("layer_types", "pad_token_id") if name in fields}
    model: Any = AutoModelForCausalLM.from_config(type(text).from_dict(fields))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        """Record the storage of a saved tensor, unless it is a parameter."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.base_model(torch.zeros(1, PROBE_TOKENS, dtype=torch.int64), use_cache=False).last_hidden_state
    del hidden
    return sum(kept.values()) // PROBE_TOKENS


def _adapter(plan: RunPlan, size: int, formula: str) -> list[Part]:
    return [] if plan.adapter is None else [Part("student: adapter", size, formula)]


def _teachers(plan: RunPlan) -> list[Part]:
    """Return the parts of all frozen models; teachers that share an object are loaded once."""
    labels: dict[int, tuple[Teacher, list[str]]] = {}
    for name, teacher in plan.teachers.items():
        labels.setdefault(id(teacher), (teacher, []))[1].append(name)
    frozen = [(f"teacher {', '.join(names)}", teacher) for teacher, names in labels.values()]
    if plan.base is not None and "base_logprobs" in plan.signals and id(plan.base) not in labels:
        frozen.append(("base model", plan.base))
    parts = []
    for label, teacher in frozen:
        own = teacher.memory(plan.processes.shards)
        if plan.shares_weights(teacher):
            parts.append(Part(label, 0, "shares the weights of the student"))
        elif own is None:
            parts.append(Part(label, 0, f"not included: {type(teacher).__name__} does not give its memory"))
        else:
            parts += [Part(f"{label}: {name}", size, formula) for name, (size, formula) in own.items()]
    return parts


def _update(plan: RunPlan, config: PreTrainedConfig) -> list[Part]:
    text: Any = config.get_text_config()
    width = dtype_size(plan.dtype)
    tokens, layers = max(plan.budgets.token_budget, plan.data.longest_trajectory), text.num_hidden_layers
    layer = activations_per_token(config) * width // 4
    per_token = layer * layers
    formula = f"{tokens} tokens x {layers} layers x {layer} B"
    if plan.budgets.gradient_checkpointing:
        per_token = text.hidden_size * width * layers + layer
        formula = f"{tokens} tokens x ({layers} layers x {text.hidden_size * width} B + {layer} B of one layer)"
    held = min(max(plan.budgets.chunk_logits, text.vocab_size), tokens * text.vocab_size)
    copies = COMPARED_COPIES if plan.distributions else LOGITS_COPIES
    chunk = f"{held} logits x 4 B x {copies} copies"
    return [Part("update: activations", tokens * per_token, formula), Part("update: logits", held * 4 * copies, chunk)]

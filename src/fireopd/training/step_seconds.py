"""Seconds of a training step on named GPUs, by part: bounds of the hardware over assumed efficiencies."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from fireopd.engines.vllm.engine import VLLMEngine
from fireopd.models.loading import load_config
from fireopd.models.model_size import count_parameters, dtype_size
from fireopd.teachers import HFTeacher, StudentTeacher, Teacher
from fireopd.training.gpu_cards import Card
from fireopd.training.memory_estimate import cache_per_token, optimizer_bytes
from fireopd.training.memory_phases import frozen_models, student_passes, trained_parameters
from fireopd.training.rollout_capacity import cache_tokens
from fireopd.training.run_plan import RunPlan

__all__ = ["ASSUMPTIONS", "StepPart", "active_parameters", "step_seconds"]

MFU = 0.35
"""Fraction of the peak rate that passes of the trainer reach; 0.25 to 0.42 on an H100, see docs/hardware.md."""
EXPERTS_MFU = 0.2
"""The same for a mixture of experts; 0.18 to 0.26 on an H100."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Settings of architectures with the number of experts of a layer."""
READS = 0.6
"""Fraction of the memory bandwidth that decoding reaches."""
TRANSFERS = 0.6
"""Fraction of a link's bandwidth that transfers reach."""
OVERHEAD = 0.003
"""Seconds of a decoding step besides its reads: launches, sampling, sums over tensor-parallel GPUs."""
FIXED_SYNC = 2.0
"""Seconds of a weight sync besides its transfers: calls, probe."""
SLEEP_CYCLES = 3
"""Transfers of vLLM's weights from host memory in a step with `sleep`: rollout, weight sync, probe."""
HOST = 50
"""GB/s of the memory of a machine, in the steps of an optimizer on CPU cores."""
ASSUMPTIONS = (
    f"{MFU:.0%} of the peak rate ({EXPERTS_MFU:.0%} with experts), {READS:.0%} of the memory bandwidth in decoding, "
    f"{TRANSFERS:.0%} of the links, "
    f"{1000 * OVERHEAD:.0f} ms a decoding step besides, {FIXED_SYNC:.0f} s a weight sync besides, "
    f"{HOST} GB/s of host memory"
)
"""Assumed efficiencies, for the output."""


@dataclass(frozen=True, slots=True)
class StepPart:
    """A part of a step."""

    name: str
    """Name."""
    seconds: float
    """Estimated seconds."""
    formula: str
    """Formula."""


def step_seconds(plan: RunPlan, card: Card, memory: int, mean_response: int) -> list[StepPart]:
    """Return the parts of a step.

    Args:
        plan: description of the run.
        card: the GPUs.
        memory: memory of a GPU, bytes.
        mean_response: mean tokens of a response.
    """
    prompts = [len(prompt.tokens) for prompt in plan.data.training_prompts]
    tokens = mean_response + (sum(prompts) // len(prompts) if prompts else 0)
    total = plan.data.trajectories * tokens
    student = load_config(plan.student, "model.student")
    sampled = plan.data.recorded is None
    parts = [_rollout(plan, card, memory, mean_response, tokens)] if sampled else []
    for label, teacher in frozen_models(plan).items():
        if isinstance(teacher, HFTeacher | StudentTeacher):
            config = load_config(teacher.path, "model.teachers") if isinstance(teacher, HFTeacher) else student
            row = tokens + max(0, plan.longest_row(teacher) - plan.data.longest_trajectory)  # with its context
            work = int(plan.data.trajectories * row * _share(plan, teacher))
            parts.append(_passes(label, plan, card, _Model.of(plan, teacher, config), work, row))
    own = _Model(student, plan.budgets.token_budget, dtype_size(plan.dtype) * plan.sharding.offload_student)
    if plan.scores_student_first:
        parts.append(_passes("student, scores", plan, card, own, total, tokens))
    factor = 8 if plan.budgets.gradient_checkpointing else 6
    parts.append(_passes("update", plan, card, own, total * plan.budgets.epochs, tokens, factor=factor))
    if plan.sharding.offload_student:
        parts.append(_optimizer_on_host(plan))
    return [*parts, _sync(plan, card)] if sampled else parts


def active_parameters(config: PreTrainedConfig) -> int:
    """Return the parameters that one token is multiplied with: of experts, those that it is sent to."""
    text: Any = config.get_text_config()
    count = count_parameters(config)
    if not text.tie_word_embeddings:
        count -= text.vocab_size * text.hidden_size  # the embeddings are looked up
    found = _experts(text)
    if found is None:
        return count
    experts, used = found
    fields = text.to_dict()
    own = 3 * text.hidden_size * (fields.get("moe_intermediate_size") or text.intermediate_size)
    layers = text.num_hidden_layers - (fields.get("first_k_dense_replace") or 0)
    return int(count - layers * (experts - used) * own)


def _experts(text: Any) -> tuple[int, int] | None:
    """Return the experts of a layer and those that a token is sent to; None without experts."""
    fields = text.to_dict()
    experts = next((fields[name] for name in EXPERTS if fields.get(name)), None)
    used = fields.get("num_experts_per_tok")
    return (experts, used) if experts and used else None


def _share(plan: RunPlan, teacher: Teacher) -> float:
    """Return the fraction of the trajectories that a teacher scores; equal fractions without prompts."""
    names = {name for name, other in plan.teachers.items() if any(model is teacher for _, model in other.models(name))}
    if plan.base is teacher and not names:
        return 1.0
    prompts = plan.data.training_prompts
    if not prompts:
        return len(names) / len(plan.teachers)
    return sum(prompt.teacher in names for prompt in prompts) / len(prompts)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model that computes."""

    config: PreTrainedConfig
    """Of the model."""
    budget: int
    """Tokens of a micro-batch."""
    hosted: int
    """Bytes of a parameter in host memory; 0 if the weights are on the GPU."""

    @classmethod
    def of(cls, plan: RunPlan, teacher: HFTeacher | StudentTeacher, config: PreTrainedConfig) -> "_Model":
        """Return a teacher as a model; one that shares the student's weights is where the student is."""
        if isinstance(teacher, HFTeacher) and not plan.shares_weights(teacher):
            return cls(config, teacher.token_budget, dtype_size(teacher.dtype) * plan.sharding.offload_teachers)
        return cls(config, teacher.token_budget, dtype_size(plan.dtype) * plan.sharding.offload_student)


def _passes(
    name: str, plan: RunPlan, card: Card, model: _Model, tokens: int, length: int, *, factor: int = 2
) -> StepPart:
    """Return the passes of a model: products, gathers of its parameters, and copies of parameters in host memory.

    Under FSDP2 they overlap, and the slowest counts; else the layers are copied one after the other.
    """
    text: Any = model.config.get_text_config()
    gpus, active, count = plan.processes.world_size, active_parameters(model.config), count_parameters(model.config)
    heads = text.num_attention_heads * (text.to_dict().get("head_dim") or text.hidden_size // text.num_attention_heads)
    each = factor * (active + text.num_hidden_layers * heads * length)  # causal attention: half of 2 x 2 x length
    share = EXPERTS_MFU if _experts(text) else MFU
    products = each * tokens / gpus / (card.tflops * 1e12 * share)
    formula = f"{factor} x {active / 1e9:.2f} B active parameters, and attention, x {tokens / 1e6:.2f} M tokens"
    rounds, sharded = -(-tokens // (gpus * model.budget)), plan.processes.sharded
    times = 1 if factor == 2 else 3  # an update copies the parameters in both passes, and the gradients back
    size = times * count * model.hosted // plan.processes.shards
    copies = rounds * size / (card.host * 1e9 * TRANSFERS)
    if size:
        formula += f"; {rounds} rounds of {size / 1e9:.1f} GB to and from the host take {copies:.1f} s"
    if not sharded:
        return StepPart(name, products + copies, formula)
    transfers = {2: 1, 6: 4, 8: 4}[factor]  # gathers in both passes, and a sum in float32
    link = card.link if plan.processes.nodes == 1 else min(card.link, card.host)
    gathers = rounds * transfers * count * 2 / (link * 1e9 * TRANSFERS) if gpus > 1 else 0.0
    formula += f"; {rounds} rounds of {transfers} x {count * 2 / 1e9:.1f} GB on the link take {gathers:.1f} s"
    return StepPart(name, max(products, gathers, copies), formula)


def _optimizer_on_host(plan: RunPlan) -> StepPart:
    """Return the optimizer steps in host memory: weights and states are read and written, gradients read twice."""
    size = int(trained_parameters(plan, student_passes(plan)) * (16 + 2 * optimizer_bytes(plan.optimizer)))
    size = size * plan.budgets.updates // (plan.processes.nodes if plan.processes.sharded else 1)
    return StepPart("optimizer on the host", size / (HOST * 1e9), f"{size / 1e9:.0f} GB in the memory of a machine")


def _rollout(plan: RunPlan, card: Card, memory: int, mean_response: int, tokens: int) -> StepPart:
    """Return decoding: steps of full batches, then those of the longest response alone."""
    engine, data = plan.data.engine, plan.data
    config = load_config(plan.student, "model.student")
    size = getattr(engine, "tensor_parallel_size", 1)
    engines, width = max(1, plan.processes.world_size // size), dtype_size(getattr(engine, "dtype", "bfloat16"))
    weights, cache = active_parameters(config) * width, cache_per_token(config) * width
    rows = -(-data.trajectories // engines)
    room = cache_tokens(plan, memory) if isinstance(engine, VLLMEngine) else rows * data.longest_trajectory
    at_once = max(1, min(rows, room // max(1, tokens)))
    read = card.bandwidth * 1e9 * READS * size
    compute = 2 * active_parameters(config) * at_once / (card.tflops * 1e12 * MFU * size)
    one = max((weights + at_once * (tokens - mean_response / 2) * cache) / read, compute) + OVERHEAD
    bulk = rows / at_once * mean_response * one
    rest = max(0, engine.max_response_length - mean_response) * (weights / read + OVERHEAD)
    formula = f"{engines} engines, {at_once} of {rows} rows at once, {1000 * one:.1f} ms a token: {bulk:.0f} s; "
    return StepPart(
        "rollout", bulk + rest, f"{formula}the longest response, {engine.max_response_length} tokens: {rest:.0f} s"
    )


def _sync(plan: RunPlan, card: Card) -> StepPart:
    """Return the weight sync: gathered parameters, and the weights that vLLM takes from host memory with `sleep`."""
    student = student_passes(plan)
    count = count_parameters(student.config)
    gathered = count * dtype_size(plan.dtype) / (card.link * 1e9 * TRANSFERS) if plan.processes.shards > 1 else 0.0
    own = count * 2 / getattr(plan.data.engine, "tensor_parallel_size", 1)
    woken = 2 * SLEEP_CYCLES * own / (card.host * 1e9 * TRANSFERS) if plan.data.engine.releases_memory else 0.0
    hosted = count * dtype_size(plan.dtype) / plan.processes.shards * plan.sharding.offload_student
    gathered += hosted / (card.host * 1e9 * TRANSFERS)
    formula = f"gather {gathered:.1f} s, {SLEEP_CYCLES} times {own / 1e9:.1f} GB to and from the host {woken:.1f} s"
    return StepPart("weight sync", FIXED_SYNC + gathered + woken, f"{formula}, {FIXED_SYNC:.0f} s")

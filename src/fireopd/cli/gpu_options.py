"""Options of `fireopd check` for GPUs that this machine does not have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fireopd.errors import UserError
from fireopd.training.gpu_cards import Card, find_card
from fireopd.training.memory_phases import GIB
from fireopd.training.run_plan import RunPlan

__all__ = ["GPUOptions", "take_gpu_options"]

OPTIONS = ("--gpus", "--gpu_memory", "--gpu", "--mean_response")
"""Options of a plan for GPUs."""
REPLACED = ("--trainer.devices", "--trainer.accelerator")
"""Settings on the command line that `--gpus` replaces."""


@dataclass(frozen=True)
class GPUOptions:
    """GPUs to plan for."""

    gpus: int
    """Number of GPUs, on all machines."""
    memory: int
    """Memory of a GPU, bytes."""
    card: Card | None
    """Named card, whose seconds are estimated."""
    mean_response: int | None
    """Mean tokens of a response, for the seconds."""

    @property
    def arguments(self) -> list[str]:
        """Settings of a trainer that needs no GPU."""
        return ["--trainer.accelerator=cpu", "--trainer.devices=1"]

    def plan(self, plan: RunPlan) -> RunPlan:
        """Return the plan of a run on these GPUs.

        Raises:
            UserError: if the machines cannot have equal numbers of GPUs.
        """
        nodes = plan.processes.nodes
        if self.gpus % nodes:
            problem = f"not a multiple of trainer.num_nodes, {nodes}"
            raise UserError("--gpus", self.gpus, problem, "give the number of GPUs on all machines")
        return replace(plan, processes=plan.processes.on_gpus(self.gpus))


def take_gpu_options(arguments: Sequence[str]) -> tuple[GPUOptions | None, list[str]]:
    """Return the GPUs that arguments name, None for those of this machine, and the other arguments.

    Raises:
        UserError: if an option has no effect, or its value is invalid.
    """
    given, others = _split(arguments)
    if "--gpus" not in given:
        if given:
            key, value = next(iter(given.items()))
            raise UserError(key, value, "it has no effect without --gpus", "add --gpus, the number of GPUs of the run")
        return None, others
    for argument in others:
        key, _, value = argument.partition("=")
        if key in REPLACED:
            raise UserError(key, value or None, "--gpus replaces it", "leave one of the two out")
    gpus = _whole("--gpus", given["--gpus"])
    card = find_card(given["--gpu"]) if "--gpu" in given else None
    if "--gpu_memory" in given:
        memory = int(_positive("--gpu_memory", given["--gpu_memory"]) * GIB)
    elif card is not None:
        memory = card.memory * GIB
    else:
        raise UserError("--gpu_memory", None, "missing", "give the GiB of a GPU, or a card, for example --gpu H100")
    mean = given.get("--mean_response")
    if mean is not None and card is None:
        raise UserError(
            "--mean_response", mean, "it has no effect without --gpu", "name a card, for example --gpu H100"
        )
    return GPUOptions(gpus, memory, card, None if mean is None else _whole("--mean_response", mean)), others


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    given, others, rest = dict[str, str](), list[str](), list(arguments)
    while rest:
        argument = rest.pop(0)
        key, equals, value = argument.partition("=")
        if key not in OPTIONS:
            others.append(argument)
        elif equals or (rest and not rest[0].startswith("--")):
            given[key] = value if equals else rest.pop(0)
        else:
            raise UserError(key, None, "it has no value", f"give one, for example {key}=8")
    return given, others


def _positive(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(key, text, "not a number greater than 0", "give a number, for example 80")
    return value


def _whole(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(key, text, "not a whole number of at least 1", "give a number, for example 8")
    return int(text)

"""Trial of the weight sync at the start of a run: a change of each tensor must arrive in the engine.

The changes are signs: each tensor is multiplied by a random sign per column. This doubles no number and rounds none, so
student and engine in any precision compute the same changed model, and a second multiplication restores the student bit
by bit. A tensor that did not arrive is then wrong by 1.4 times its own size, which moves the log-probabilities by
tenths of a nat and more, at any learning rate.

The rounding of half precision grows with the number of layers, and the effect of a single tensor falls. So in half
precision there are several trials with some of the layers each. The matrices of the other layers are multiplied by
2^-40, which takes them out of the residual stream.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fireopd.distributed import collectives
from fireopd.engines import RolloutEngine
from fireopd.engines.contract import check_version, checked_probe
from fireopd.errors import UserError
from fireopd.models.weight_stream import WeightStream
from fireopd.training.weight_probe import ProbedModule, allowed_gap, computing_dtypes, student_logprobs

__all__ = ["TRIAL_VERSION", "Alarm", "Changes", "SyncTrial", "SyncedModule", "changed", "planned_changes"]

TRIAL_VERSION = -2
"""Policy version of an engine with changed weights."""
ACTIVE_LAYERS = 2
"""Layers of a trial in half precision, unless this needs more than `MOST_TRIALS`."""
MOST_TRIALS = 6
"""Largest number of trials."""
TRIAL_GAP = 1.5
"""Bound of the mean difference, as a multiple of the bound of a probe and of the standard deviation of the student's
log-probabilities: the changes may raise the logits, and rounding with them."""
MUTED = 2.0**-40
"""Factor of the matrices of inactive layers; a power of two, so that it rounds nothing."""
NAMED = 3
"""Largest number of tensors to name."""
LAYER = re.compile(r"\.(\d+)\.")


class SyncedModule(ProbedModule, Protocol):
    """Attributes of the Lightning module that a trial needs."""

    policy_version: int

    def student_weights(self) -> WeightStream:
        """Return the student's tensors."""


@dataclass(frozen=True)
class Changes:
    """Changes of a trial."""

    flipped: frozenset[str]
    """Names of the tensors whose columns get random signs."""
    muted: frozenset[str] = frozenset()
    """Names of the matrices of inactive layers."""


@dataclass(frozen=True)
class Alarm:
    """Trial in which engine and student disagree on some process."""

    changes: Changes
    """Changes of the trial."""
    problem: str
    """Difference on this process; empty if there is none."""


def planned_changes(tensors: dict[str, Tensor], half: bool) -> list[Changes]:
    """Return the changes of each trial; together they flip every tensor of floating-point numbers.

    Args:
        tensors: tensors of the model by name; the first number of a name is that of its layer.
        half: whether student or engine compute in half precision.
    """
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    numbers = {name: int(found[1]) if (found := LAYER.search(name)) else None for name in floats}
    layers = len({number for number in numbers.values() if number is not None})
    trials = min(MOST_TRIALS, -(-layers // ACTIVE_LAYERS)) if half and layers else 1
    made = []
    for trial in range(trials):
        active = {name for name, number in numbers.items() if number is None or number % trials == trial}
        muted = {name for name, tensor in floats.items() if name not in active and tensor.ndim > 1}
        made.append(Changes(frozenset(active), frozenset(muted)))
    return made


@contextmanager
def changed(model: nn.Module, changes: Changes) -> Iterator[None]:
    """Change the tensors of a model in place, and restore them bit by bit at the end."""
    lost: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    for name, own in _local_tensors(model):
        if name in changes.flipped:
            _flip(name, own)
        elif name in changes.muted:
            small = own * MUTED
            rounded = small / MUTED != own  # of numbers next to the smallest ones of the dtype
            lost[name] = (rounded.nonzero(as_tuple=True), own[rounded])
            own.copy_(small)
    try:
        yield
    finally:
        for name, own in _local_tensors(model):
            if name in changes.flipped:
                _flip(name, own)
            elif name in changes.muted:
                own.div_(MUTED)
                places, values = lost[name]
                own[places] = values


def _local_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor, or the shard of this process, after all gathered copies were dropped."""
    for name, tensor in WeightStream(model).tensors.items():
        assert isinstance(tensor, Tensor)
        yield name, tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _flip(name: str, tensor: Tensor) -> None:
    """Multiply a tensor by signs per column, in place. They depend on the name and the number of columns."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    signs = 2 * torch.randint(2, tensor.shape[-1:], generator=generator) - 1
    signs.view(-1)[:1] = -1
    tensor.mul_(signs.to(tensor.device, tensor.dtype))


class SyncTrial:
    """Trial of the sync of an engine. Every process must make and run it."""

    def __init__(self, pl_module: SyncedModule, engine: RolloutEngine, tokens: Sequence[int]) -> None:
        """Store module, engine and the tokens of the probes."""
        self.pl_module, self.engine, self.tokens = pl_module, engine, list(tokens)
        self.model = pl_module.student.model
        self.syncs = 0
        """Number of syncs of the trial."""

    @torch.no_grad()
    def run(self) -> None:
        """Send changed weights, and compare the log-probabilities of engine and student.

        Afterwards the student has its weights again. The engine has those of the last trial, under the version
        `TRIAL_VERSION`, so a sync must follow. Does nothing in float16, where changed models overflow. An alarm without
        a tensor to blame is taken for rounding.

        Raises:
            UserError: if tensors did not arrive; it names them. The engine has the student's weights, as far as they
                arrive.
            ContractError: if a probe of the engine is invalid.
        """
        alarm = self.first_alarm()
        if alarm is None:
            return
        names = self._missing(alarm.changes)
        if names:
            self.engine.load_weights(self.pl_module.student_weights(), self.pl_module.policy_version)
            raise self._error(alarm.problem, names)

    @torch.no_grad()
    def first_alarm(self) -> Alarm | None:
        """Run the trials up to the first that disagrees; return it, or None if all agree."""
        dtypes = computing_dtypes(self.pl_module, self.engine)
        if any("16" in name and "bf" not in name for name in dtypes):
            return None
        sent = self.pl_module.student_weights().tensors
        own = WeightStream(self.model).tensors  # with an adapter, those of the layers below it have another name
        tensors: Any = {name: tensor for name, tensor in own.items() if name.replace(".base_layer", "") in sent}
        for changes in planned_changes(tensors, half=any("16" in name for name in dtypes)):
            problem = self._disagreement(changes)
            if problem is not None:
                return Alarm(changes, problem)
        return None

    def _disagreement(self, changes: Changes) -> str | None:
        """Send changed weights; return how far this process's engine is from the student, '' for other processes."""
        with changed(self.model, changes):
            self.engine.load_weights(self.pl_module.student_weights(), TRIAL_VERSION)
            check_version(self.engine, TRIAL_VERSION)
            with self.pl_module.trainer.strategy.precision_plugin.forward_context():
                expected = student_logprobs(self.pl_module, self.tokens)
        self.syncs += 1
        if not expected.isfinite().all():  # the first probe reports it
            return None
        found = checked_probe(self.engine, self.engine.probe(self.tokens), self.tokens)
        bound = TRIAL_GAP * allowed_gap(self.pl_module, self.engine) * max(1.0, expected.std(correction=0).item())
        problem = None
        for name, logprobs in found.items():
            gap = (logprobs - expected).abs().mean().item()
            if not gap <= bound:
                problem = f"those of {name} are {gap:.3g} nats from the student's in the mean; {bound:.3g} are allowed"
        if collectives.all_reduce_max(int(problem is not None), self.pl_module.device):
            return problem or ""
        return None

    def _missing(self, changes: Changes) -> list[str]:
        """Return the first tensors whose change does not arrive; none if rounding alone raised the alarm."""
        none = frozenset[str]()
        if changes.muted and self._disagreement(Changes(none, changes.muted)) is not None:
            return self._bisect(sorted(changes.muted), lambda names: Changes(none, names))
        return self._bisect(sorted(changes.flipped), lambda names: Changes(names, changes.muted))

    def _bisect(self, names: list[str], of: Callable[[frozenset[str]], Changes]) -> list[str]:
        """Return the first names whose changes disagree."""
        if self._disagreement(of(frozenset(names))) is None:
            return []
        if len(names) == 1:
            return names
        first = self._bisect(names[: len(names) // 2], of)
        return first if len(first) >= NAMED else (first + self._bisect(names[len(names) // 2 :], of))[:NAMED]

    def _error(self, problem: str, names: list[str]) -> UserError:
        named = ", ".join(name.replace(".base_layer", "") for name in names)
        others = " and perhaps others" * (len(names) == NAMED)
        text = f"a change of {named}{others} did not arrive in {type(self.engine).__name__}: in a trial of the weight"
        text += f" sync, the log-probabilities differ ({problem or 'on another process'})"
        remedy = "look for tensors that the engine does not load; raise it if the engine computes in half precision"
        return UserError("data.engine.max_probe_gap", self.engine.max_probe_gap, text, remedy)

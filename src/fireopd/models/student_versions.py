"""Versions of the student that score as teachers: current weights, initial weights, moving averages.

Each version exists once, whatever the number of teachers. Only what differs from the student is held a second time:
nothing of the current weights, nothing of the initial weights below an adapter, the adapter of its moving average.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from fireopd.models.adapter import Adapter
from fireopd.models.base_model_scorer import BaseModelScorer, SharedScorer
from fireopd.models.scorer import CausalScorer

__all__ = ["StudentVersions", "average_name"]


class StudentVersions:
    """Current, initial and averaged weights of a student, as scorers."""

    def __init__(
        self,
        student: CausalScorer,
        adapter: Adapter | None = None,
        load: Callable[[], CausalScorer] | None = None,
        load_average: Callable[[], CausalScorer] | None = None,
    ) -> None:
        """Store the student.

        Args:
            student: student with its initial weights, sharded if the run shards models.
            adapter: its adapter, if it has one.
            load: function that loads another copy of the initial weights, frozen. Every process calls it.
            load_average: the same for a copy that `update` changes.
        """
        self.current = student
        self.adapter = adapter
        self.averages = nn.ModuleDict()
        """Moving averages by `average_name`: the part of the state that checkpoints hold."""
        self._load, self._load_average = load, load_average
        self._initial: CausalScorer | None = None
        self._decays: dict[str, float] = {}

    def initial(self) -> CausalScorer:
        """Return a scorer of the initial weights. Every process must call."""
        if self.adapter is not None:
            return BaseModelScorer(self.current, self.adapter)
        if self._initial is None:
            assert self._load is not None, "no function loads the initial weights"
            self._initial = self._load()
        return self._initial

    def average(self, decay: float) -> CausalScorer:
        """Return a scorer of the moving average with a decay, which starts at the initial weights.

        Every process must call.
        """
        name = average_name(decay)
        if name not in self.averages:
            self._decays[name] = decay
            self.averages[name] = self._average_of_adapter() if self.adapter is not None else self._copy()
        average = self.averages[name]
        return average if isinstance(average, CausalScorer) else _AveragedAdapter(self.current, average)

    def _copy(self) -> CausalScorer:
        assert self._load_average is not None, "no function loads the initial weights"
        return self._load_average()

    def _average_of_adapter(self) -> nn.ParameterDict:
        trained = {name: value for name, value in self.current.named_parameters() if value.requires_grad}
        values = nn.ParameterDict()
        for name, value in trained.items():
            values[name.replace(".", "/")] = Parameter(value.detach().clone(), requires_grad=False)
        return values

    @torch.no_grad()
    def update(self) -> None:
        """Move each average by 1 - decay towards the current weights. Called after each optimizer step."""
        for name, average in self.averages.items():
            for value, parameter in zip(average.parameters(), trained_parameters(self.current), strict=True):
                own, current = _local(value), _local(parameter)
                own.lerp_(current.to(own.device), 1 - self._decays[name])


class _AveragedAdapter(SharedScorer):
    """Scorer of the student with the moving average of its adapter."""

    def __init__(self, student: CausalScorer, average: nn.Module) -> None:
        """Share a student's weights; `average` holds the values of its trained parameters in their order."""
        super().__init__(student)
        self.average = average

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Exchange the adapter's values in place, which a sharded model gathers, and restore the student's own."""
        trained = trained_parameters(self.student)
        own = [parameter.detach().clone() for parameter in trained]
        try:
            _copy(list(self.average.parameters()), trained)
            yield
        finally:
            _copy(own, trained)


@torch.no_grad()
def _copy(values: Sequence[Tensor], parameters: Sequence[Parameter]) -> None:
    """Give parameters other values, in place."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def average_name(decay: float) -> str:
    """Return the name of the moving average with a decay, for example `0_999`."""
    return repr(float(decay)).replace(".", "_")


def trained_parameters(scorer: CausalScorer) -> list[Parameter]:
    """Return the parameters of a model, or those of its adapter."""
    return [parameter for parameter in scorer.parameters() if parameter.requires_grad]


def _local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

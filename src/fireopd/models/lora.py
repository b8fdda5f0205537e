"""LoRA (Hu et al. 2022, arXiv 2106.09685): a trainable update of low rank to the frozen weights of linear layers.

Layers and forward pass are those of PEFT. Here are the checks, the initial values and the sum of weight and update.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fireopd import private_apis
from fireopd.errors import UserError, import_extra
from fireopd.models.adapter import Adapter, MergedWeight
from fireopd.models.loading import load_config, resolve
from fireopd.models.model_size import without_memory

__all__ = ["LoRA"]

KEY = "model.adapter"
"""Setting that holds the adapter."""
NAME = "default"
"""Name of the only adapter of a model in PEFT."""
DOWN, UP = f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"
"""Ends of the names of an update's factors."""


@dataclass(frozen=True)
class LoRA(Adapter):
    """Update W + (alpha / rank) U D of the weights W of linear layers; only U and D are trained, in float32.

    U is 0 at the start, so training starts from the base model.
    """

    rank: int = 32
    """Columns of U and rows of D."""
    alpha: float = 32.0
    """Scale of the update, times the rank."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers with an update, such as `q_proj`; `all-linear` for all linear layers but the output layer."""
    dropout: float = 0.0
    """Only 0: rollouts, scores and update must come from one policy, and a mask would make them differ."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha must be greater than 0, got {self.alpha}")
        if self.dropout != 0:
            problem = "rollouts, scores and update must come from one policy"
            raise ValueError(f"dropout must be 0, got {self.dropout}: {problem}")
        if not self.target_modules:
            raise ValueError("target_modules must name a layer, or be all-linear")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def check(self, student: str) -> None:
        """Check that PEFT is installed, and that every target is a linear layer of the student."""
        self.shapes(load_config(student, "model.student"))

    def shapes(self, config: PreTrainedConfig) -> dict[str, torch.Size]:
        """Return the shapes of the factors by name."""
        model = without_memory(config)
        self.attach(model)
        return {name: value.shape for name, value in self.trained(model.state_dict()).items()}

    def attach(self, model: PreTrainedModel) -> None:
        """Freeze a model and add the factors, with the same initial values on all devices and processes."""
        peft = import_extra("peft", "lora", KEY, type(self).__name__)
        linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)]
        self._check_targets(model, linear)
        model.requires_grad_(False)
        transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in linear)
        with torch.random.fork_rng(devices=[]):  # PEFT's initial values are replaced below
            peft.inject_adapter_in_model(self.peft_config(transposed=transposed), model, NAME)
        draws = torch.Generator().manual_seed(torch.initial_seed())
        for path in linear:
            factors = getattr(model.get_submodule(path), "lora_A", None)
            if factors is not None:
                _initialize(model.get_submodule(path), draws)

    def _check_targets(self, model: PreTrainedModel, linear: list[str]) -> None:
        """Raise `UserError` if a target is no linear layer of the model, or is its output layer."""
        if isinstance(self.target_modules, str):
            return
        head = next((name for name, layer in model.named_modules() if layer is model.get_output_embeddings()), "")
        names = sorted({name.rpartition(".")[2] for name in linear if name != head})
        for target in self.target_modules:
            matching = [name for name, _ in model.named_modules() if f".{name}".endswith(f".{target}")]
            key, remedy = f"{KEY}.target_modules", f"choose from {', '.join(names)}"
            if head in matching:
                problem = "the output layer cannot have an update, since its weight is read directly and may be tied"
                raise UserError(key, target, problem, remedy)
            if not matching or not set(matching) <= set(linear):
                raise UserError(key, target, "no linear layer of the student has this name", remedy)

    def peft_config(self, base: str | None = None, *, transposed: bool = False) -> Any:
        """Return the configuration in PEFT, with the name of the base model.

        Args:
            base: model folder or hub name of the base model.
            transposed: whether its weights are stored as [in, out].
        """
        peft = import_extra("peft", "lora", KEY, type(self).__name__)
        settings: dict[str, Any] = {"r": self.rank, "lora_alpha": self.alpha, "target_modules": self.target_modules}
        settings["fan_in_fan_out"] = transposed
        return peft.LoraConfig(**settings, task_type="CAUSAL_LM", base_model_name_or_path=base)

    @contextmanager
    def without(self, model: nn.Module) -> Iterator[None]:
        """Skip the updates in the forward pass."""
        layers = [layer for layer in model.modules() if hasattr(layer, "lora_A")]
        try:
            for layer in layers:
                private_apis.skip_adapter(layer, skip=True)
            yield
        finally:
            for layer in layers:
                private_apis.skip_adapter(layer, skip=False)

    def merged(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor | MergedWeight]:
        """Return the tensors under the names of the base model, updated ones as a sum that is computed when read."""
        named: dict[str, Tensor | MergedWeight] = {}
        for name, tensor in tensors.items():
            path, inner, rest = name.rpartition(".base_layer.")
            if inner and rest == "weight":
                transposed = isinstance(model.get_submodule(f"{path}.base_layer"), Conv1D)
                named[f"{path}.weight"] = self._sum(tensor, tensors, path, transposed=transposed)
            elif inner:
                named[f"{path}.{rest}"] = tensor
            elif not name.endswith((DOWN, UP)):
                named[name] = tensor
        return named

    @torch.no_grad()
    def merge_into(self, model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
        """Add the updates to the weights of a base model, in place, one layer after the other.

        Raises:
            KeyError: if a factor is missing.
            AttributeError, RuntimeError: if the factors are those of another model.
        """
        for path in (name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)):
            layer: Any = model.get_submodule(path)
            transposed = isinstance(layer, Conv1D)
            layer.weight.copy_(self._sum(layer.weight, tensors, path, transposed=transposed).gathered())

    def save(self, folder: Path, tensors: Mapping[str, Tensor], base: str) -> None:
        """Write the factors as an adapter folder of PEFT.

        Args:
            folder: folder to write, which exists.
            tensors: factors of all updates.
            base: name of the base model.
        """
        place = Path(resolve(base, "student"))
        model = without_memory(load_config(base, "student"))
        transposed = any(isinstance(layer, Conv1D) for layer in model.modules())
        config = self.peft_config(str(place.resolve()) if place.is_dir() else base, transposed=transposed)
        config.inference_mode = True
        config.save_pretrained(folder)
        named = {f"base_model.model.{name.replace(f'.{NAME}.', '.')}": value for name, value in tensors.items()}
        save_file({name: value.contiguous() for name, value in named.items()}, folder / "adapter_model.safetensors")

    def _sum(self, weight: Tensor, tensors: Mapping[str, Tensor], path: str, *, transposed: bool) -> MergedWeight:
        up, down = tensors[path + UP], tensors[path + DOWN]
        return MergedWeight(weight, up, down, self.alpha / self.rank, transposed)

    def trained(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Return the factors of all updates."""
        return {name: value for name, value in names.items() if name.endswith((DOWN, UP))}


def _initialize(layer: nn.Module, draws: torch.Generator) -> None:
    """Set the factors of a layer in float32: D as PEFT does, drawn on the CPU, and U to 0."""
    down, up = (layer.get_parameter(f"{name}.{NAME}.weight") for name in ("lora_A", "lora_B"))
    for factor in (down, up):
        factor.data = factor.data.float()
    values = torch.empty(down.shape, device="cpu")
    nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=draws)
    with torch.no_grad():
        down.copy_(values)
        up.zero_()

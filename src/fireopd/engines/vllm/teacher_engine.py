"""Engine on vLLM servers of a teacher: `fireopd serve MODEL`, with weights that no trainer replaces."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar

import torch

from fireopd.engines.vllm.client import ServerClient
from fireopd.engines.vllm.server_engine import VLLMServerEngine

__all__ = ["TeacherServerEngine"]

LOADED = "default"
"""Version that vLLM gives to the weights that it has loaded itself."""


@dataclass
class TeacherServerEngine(VLLMServerEngine):
    """Samples responses of a teacher on its servers. A failing server is excluded for the rest of the run."""

    model: str = ""
    """Model of the servers."""
    key: str = ""
    """Setting that holds the addresses, for messages."""

    addresses: ClassVar[str] = "sampling_servers"

    @property
    def version(self) -> str:
        """Version that the servers must report: that of weights as they were loaded."""
        return LOADED

    def _settings_problem(self, server: ServerClient) -> str | None:
        served = str(server.settings()["model_config"]["served_model_name"])
        if PurePath(served.rstrip("/")).name != PurePath(self.model.rstrip("/")).name:
            return f"it serves {served!r} instead of {self.model!r}"
        if server.weight_version() != LOADED:
            return "a trainer has replaced its weights"
        return super()._settings_problem(server)

    def setup(self, model: str, device: torch.device) -> None:
        """Load the stop tokens and create the clients."""
        super().setup(model, device)
        self.pool.key, self.pool.until = self.key, "the end of the run"

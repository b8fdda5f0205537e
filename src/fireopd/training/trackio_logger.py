"""Logger of Trackio, the local tracker in W&B's form. Lightning has none."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["TrackioLogger"]


class TrackioLogger(Logger):
    """Logger of Trackio. Its files are in the folder of the environment variable `TRACKIO_DIR`.

    Args:
        project: project of the run.
        name: name of the run; null for the name that Trackio draws.
        group: group of the run; null for none.
        space_id: Hugging Face Space that shows the run; null for this machine.
        private: whether a Space that does not exist yet is created as private.

    Raises:
        ModuleNotFoundError: if Trackio is not installed.
    """

    def __init__(
        self,
        project: str = "fireopd",
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
        private: bool = True,
    ) -> None:
        """Store the settings; the run begins with the first entry."""
        super().__init__()
        if find_spec("trackio") is None:
            raise ModuleNotFoundError("trackio is not installed: pip install trackio")
        self.project, self.given_name, self.group = project, name, group
        self.space_id, self.private = space_id, private
        self.run: Any = None

    @property
    def name(self) -> str:
        """Project of the run."""
        return self.project

    @property
    def version(self) -> str | None:
        """Name of the run; None before its first entry."""
        return None if self.run is None else str(self.run.name)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Run of Trackio."""
        if self.run is None:
            space = {} if self.space_id is None else {"space_id": self.space_id, "private": self.private}
            begin = import_module("trackio").init
            self.run = begin(self.project, self.given_name, self.group, embed=False, resume="allow", **space)
        return self.run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *arguments: Any, **settings: Any) -> None:
        """Store settings by name; values that are not numbers are stored as text."""
        plain = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in params.items()}
        self.experiment.config |= plain

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars."""
        self.experiment.log(dict(metrics), step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is pending and end the run."""
        if self.run is not None:
            self.run.finish()

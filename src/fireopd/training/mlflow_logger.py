"""MLflow logger with metric names that are not paths of each other."""

from collections.abc import Mapping

from lightning.pytorch.loggers import MLFlowLogger

__all__ = ["FlatMLFlowLogger", "flat_name"]


class FlatMLFlowLogger(MLFlowLogger):
    """MLflow logger that writes `fire/keep_ratio/math` as `fire/keep_ratio.math`.

    MLflow's file store writes a metric to the file of its name, so that `fire/keep_ratio` cannot be a folder as well.
    The command line uses this class in place of Lightning's.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars."""
        super().log_metrics({flat_name(name): value for name, value in metrics.items()}, step)


def flat_name(tag: str) -> str:
    """Return the name of a metric with a dot in place of every slash but the first."""
    group, slash, name = tag.partition("/")
    return group + slash + name.replace("/", ".")

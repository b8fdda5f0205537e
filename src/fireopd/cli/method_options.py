"""The options by which commands on recorded rollouts are told a method: strategy by strategy, or by a method's file."""

from pathlib import Path

from jsonargparse import Namespace

from fireopd.algorithm import Normalization
from fireopd.analysis.recordings import how_to_record
from fireopd.cli.method_files import read_method
from fireopd.cli.parser import Parser, instantiate
from fireopd.errors import UserError
from fireopd.filters import KeepAll, TrajectoryFilter
from fireopd.method import Method, Population
from fireopd.objectives import Objective, ReverseKL
from fireopd.types import ScoredBatch
from fireopd.weighters import TokenWeighter, UniformWeighter

OPTIONS = ("trajectory_filter", "token_weighter", "objective", "normalization", "importance_cap", "population")
"""The settings of a method that count on recorded rollouts."""


def add_method_options(parser: Parser) -> None:
    """Let a parser take a method; by default it is plain OPD."""
    parser.add_argument(
        "--method", type=Path | None, help="a method's file, configs/methods/fire.yaml, or the options:"
    )
    parser.add_argument("--trajectory_filter", type=TrajectoryFilter, default=KeepAll())
    parser.add_argument("--token_weighter", type=TokenWeighter, default=UniformWeighter())
    parser.add_argument("--objective", type=Objective, default=ReverseKL())
    parser.add_argument("--normalization", type=Normalization, default="trajectory", help="where weights have mean 1")
    parser.add_argument("--importance_cap", type=float | None, default=5.0, help="cap of the importance weights")
    parser.add_argument("--population", type=Population, default="rollout_batch", help="what strategies see together")


def instantiate_method(parser: Parser, settings: Namespace) -> tuple[Namespace, Method]:
    """Make the objects that the settings describe; return them, and the method.

    Raises:
        UserError: if a method's file cannot be read as one, or if options are given beside it.
    """
    if settings.method is None:
        settings = instantiate(parser, settings)
        return settings, Method(**{name: settings[name] for name in OPTIONS})
    plain = parser.get_defaults()
    for name in OPTIONS:
        if settings[name] != plain[name]:
            remedy = "leave one of the two out"
            raise UserError(f"--{name}", str(settings[name]), f"{settings.method} says this already", remedy)
    method, _ = read_method(settings.method.stem, settings.method, "--method")
    return instantiate(parser, settings), method


def check_recorded(method: Method, path: Path, batch: ScoredBatch) -> None:
    """Check that a method can be asked about recorded rollouts.

    Raises:
        UserError: if the file lacks a signal, or importance weights to its sampler mean nothing.
    """
    missing = sorted(method.requires - batch.signals.keys())
    if missing:
        remedy = f"{how_to_record(missing[0])}, or choose another"
        raise UserError("FILE", str(path), f"a strategy requires {missing[0]!r}", remedy)
    if batch.sampling.truncated and method.importance_cap is not None:
        problem = f"its responses were drawn from a part of the vocabulary ({batch.sampling})"
        raise UserError("--importance_cap", method.importance_cap, problem, "do without it: --importance_cap null")

"""Command-line options that select a method for recorded rollouts: one option per strategy, or a method file."""

from pathlib import Path

from jsonargparse import Namespace

from fireopd.algorithm import Normalization
from fireopd.cli.instantiation import instantiate
from fireopd.cli.method_files import read_method
from fireopd.cli.parser import Parser
from fireopd.errors import UserError
from fireopd.filters import KeepAll, TrajectoryFilter
from fireopd.method import Method, Population
from fireopd.objectives import Objective, ReverseKL
from fireopd.weighters import TokenWeighter, UniformWeighter

__all__ = ["add_method_options", "instantiate_method"]

OPTIONS = ("trajectory_filter", "token_weighter", "objective", "normalization", "importance_cap", "population")
"""Settings of a method that take effect on recorded rollouts."""


def add_method_options(parser: Parser) -> None:
    """Add the options of a method to a parser; the default is plain on-policy distillation."""
    parser.add_argument(
        "--method",
        type=Path | None,
        help="file of a method, for example configs/methods/fire.yaml, instead of the options below",
    )
    parser.add_argument("--trajectory_filter", type=TrajectoryFilter, default=KeepAll())
    parser.add_argument("--token_weighter", type=TokenWeighter, default=UniformWeighter())
    parser.add_argument("--objective", type=Objective, default=ReverseKL())
    parser.add_argument(
        "--normalization", type=Normalization, default="trajectory", help="scope in which token weights have mean 1"
    )
    parser.add_argument("--importance_cap", type=float | None, default=5.0, help="cap of the importance weights")
    parser.add_argument(
        "--population", type=Population, default="rollout_batch", help="rows that strategies see together"
    )


def instantiate_method(parser: Parser, settings: Namespace) -> tuple[Namespace, Method]:
    """Return the instantiated settings and the method.

    Raises:
        UserError: if the method file is invalid, or options of a method are given in addition to it.
    """
    if settings.method is None:
        settings = instantiate(parser, settings)
        return settings, Method(**{name: settings[name] for name in OPTIONS})
    plain = parser.get_defaults()
    for name in OPTIONS:
        if settings[name] != plain[name]:
            remedy = "leave one of the two out"
            raise UserError(f"--{name}", str(settings[name]), f"{settings.method} already sets it", remedy)
    method, _ = read_method(settings.method.stem, settings.method, "--method")
    return instantiate(parser, settings), method

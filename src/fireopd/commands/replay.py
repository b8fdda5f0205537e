"""`fireopd replay FILE --out OUT`: filter, weigh and judge recorded rollouts without any model.

Reads a file of scored rollouts, writes what the method makes of it (keep, mask, weight, advantage) as safetensors, and
prints a summary as JSON.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from fireopd.algorithm import Normalization
from fireopd.commands.parsers import Parser, instantiate
from fireopd.diagnostics import step_diagnostics
from fireopd.errors import UserError
from fireopd.filters import KeepAll, TrajectoryFilter
from fireopd.methods import Method, Population
from fireopd.objectives import Objective, ReverseKL
from fireopd.plugins import load_plugins
from fireopd.recordings import read_scored, write_targets
from fireopd.weighters import TokenWeighter, UniformWeighter


def run(arguments: Sequence[str]) -> None:
    """Replay a file."""
    load_plugins()
    parser = Parser(prog="fireopd replay", description=__doc__)
    parser.add_argument("file", type=Path, help="scored rollouts, as the RolloutRecorder callback writes them")
    parser.add_argument("--out", type=Path, required=True, help="where to write the targets")
    parser.add_argument("--trajectory_filter", type=TrajectoryFilter, default=KeepAll())
    parser.add_argument("--token_weighter", type=TokenWeighter, default=UniformWeighter())
    parser.add_argument("--objective", type=Objective, default=ReverseKL())
    parser.add_argument("--normalization", type=Normalization, default="trajectory", help="where weights have mean 1")
    parser.add_argument("--importance_cap", type=float | None, default=5.0, help="cap of the importance weights")
    parser.add_argument("--population", type=Population, default="rollout_batch", help="what strategies see together")
    settings = instantiate(parser, parser.parse_args(list(arguments)))
    method = Method(
        settings.trajectory_filter,
        settings.token_weighter,
        settings.objective,
        normalization=settings.normalization,
        importance_cap=settings.importance_cap,
        population=settings.population,
    )
    if not settings.out.parent.is_dir():
        raise UserError("--out", str(settings.out), "its folder does not exist", "make the folder, or choose another")
    batch = read_scored(settings.file)
    missing = sorted(method.requires - batch.signals.keys())
    if missing:
        raise UserError(
            "FILE", str(settings.file), f"a strategy requires {missing[0]!r}", "record it, or choose another"
        )
    if batch.sampling.truncated and settings.importance_cap is not None:
        problem = f"its responses were drawn from a part of the vocabulary ({batch.sampling})"
        raise UserError("--importance_cap", settings.importance_cap, problem, "do without it: --importance_cap null")
    targets = method.targets(batch)
    write_targets(settings.out, targets)
    summary = {"trajectories": len(batch.teachers), "tokens": int(batch.lengths.sum())}
    summary |= {"kept_trajectories": int(targets.keep.sum()), "kept_tokens": int(targets.mask.sum())}
    print(json.dumps(summary | step_diagnostics(batch, targets), indent=1))

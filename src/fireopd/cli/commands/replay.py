"""`fireopd replay FILE --out OUT`: compute the training targets of recorded rollouts without any model.

Reads a file of scored rollouts, writes the targets of the method (keep, mask, weight, advantage) as safetensors, and
prints a summary as JSON.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from fireopd.atomic_files import check_folder, writing
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.method_options import add_method_options, instantiate_method
from fireopd.cli.parser import Parser
from fireopd.training.recordings import check_method, read_scored, write_targets
from fireopd.training.step_metrics import step_diagnostics

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Compute and write the targets of a recording."""
    load_plugins()
    parser = Parser(prog="fireopd replay", description=__doc__)
    parser.add_argument("file", type=Path, help="scored rollouts, as written by the RolloutRecorder callback")
    parser.add_argument("--out", type=Path, required=True, help="file of targets to write")
    add_method_options(parser)
    settings, method = instantiate_method(parser, parser.parse_args(list(arguments)))
    check_folder(settings.out)
    batch = read_scored(settings.file)
    check_method(settings.file, batch, method)
    targets = method.targets(batch)
    with writing("--out", settings.out):
        write_targets(settings.out, targets)
    summary = {"trajectories": len(batch.teachers), "tokens": int(batch.lengths.sum())}
    summary |= {"kept_trajectories": int(targets.keep.sum()), "kept_tokens": int(targets.mask.sum())}
    print(json.dumps(summary | step_diagnostics(batch, targets) | {"targets": str(settings.out)}, indent=1))

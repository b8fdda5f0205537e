"""`fireopd report RUN --out FILE.html`: write one self-contained page on a run.

Reads the files of a run folder, without a model: what ran, results, warnings, charts, what was dropped and why, token
weights, costs, and the trajectories that the Trajectories callback wrote. Also for a run that is in progress.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from fireopd.analysis.runs import find_runs
from fireopd.atomic_files import check_folder, writing
from fireopd.cli.command_parser import CommandParser
from fireopd.cli.optional_packages import check_package
from fireopd.cli.signals import ended_at_once
from fireopd.errors import UserError
from fireopd.training.run_layout import CONFIG

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Write the report."""
    parser = CommandParser("report", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run, version_<n>, or one that holds a single run")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    settings = parser.parse_args(list(arguments))
    folder = _folder(settings.run)
    check_package("matplotlib", "fireopd report", "compare")
    check_folder(settings.out)
    with ended_at_once():
        module = import_module("fireopd.analysis.report")
    page = module.run_report(folder)
    with writing("--out", settings.out):
        page.write(settings.out)
    print(f"{settings.out}: {settings.out.stat().st_size / 1e6:.1f} MB. Open it in any browser.")


def _folder(given: Path) -> Path:
    """Return the folder of the run.

    Raises:
        UserError: if the folder holds no run, or several.
    """
    if (given / CONFIG).exists():
        return given
    found = [str(status.folder) for status in find_runs(given)] if given.is_dir() else []
    if len(found) != 1:
        problem = f"it holds {len(found)} runs" if found else "no run in this folder"
        remedy = f"give one of {', '.join(found)}" if found else "give the folder version_<n> of a run"
        raise UserError("RUN", str(given), problem, remedy)
    return Path(found[0])

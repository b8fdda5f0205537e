"""`fireopd view ROLLOUTS ... --out PAGE.html`: show recorded rollouts with the token-level values of a method.

Reads files of scored rollouts and writes a self-contained page with each token coloured by its weight, advantage,
log-probability or another value. The default method is plain on-policy distillation; select another one with --method
or with the options below.
"""

from collections.abc import Sequence
from pathlib import Path

from fireopd.analysis.page import Page
from fireopd.analysis.provenance import versions
from fireopd.analysis.view import TrajectoryList, View
from fireopd.atomic_files import check_folder, writing
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.method_options import add_method_options, instantiate_method
from fireopd.cli.parser import Parser
from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.models.loading import load_tokenizer
from fireopd.training.recordings import check_method, check_responses, read_scored, recorded_student

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Write the page."""
    load_plugins()
    parser = Parser(prog="fireopd view", description=__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, help="scored rollouts, as written by the RolloutRecorder callback"
    )
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.add_argument(
        "--tokenizer",
        type=str | None,
        help="model whose tokenizer is used",
    )
    parser.add_argument(
        "--number", type=int | None, help="trajectories on the page; by default as many as fit into about ten megabytes"
    )
    add_method_options(parser)
    settings, method = instantiate_method(parser, parser.parse_args(list(arguments)))
    if settings.number is not None and settings.number < 1:
        raise UserError("--number", settings.number, "not a number of trajectories", "give 1 or more")
    check_folder(settings.out)
    tokenizer = load_tokenizer(*_tokenizer(settings.tokenizer, settings.files))
    views = sorted((_view(file, method) for file in settings.files), key=lambda view: view.batch.policy_version)
    shown = TrajectoryList.of(views, tokenizer, settings.number)
    facts = {
        "trajectories": shown.shown,
        "files": ", ".join(map(str, settings.files)),
        "method": " · ".join(map(str, method.strategies.values())),
        "normalization": method.normalization,
        "versions": versions(),
    }
    with writing("--out", settings.out):
        Page("Token weights and scores", facts, [shown.section()]).write(settings.out)
    size = settings.out.stat().st_size / 1e6
    print(f"{settings.out}: {len(shown.rows)} trajectories, {size:.1f} MB. Open it in any browser.")


def _tokenizer(named: str | None, files: Sequence[Path]) -> tuple[str, str]:
    """Return the model whose tokenizer decodes the files, and the setting that names it."""
    if named is not None:
        return named, "--tokenizer"
    students = {file: recorded_student(file) for file in files}
    for file, student in students.items():
        if student is None:
            remedy = "name the model that sampled them: --tokenizer tiny/student"
            raise UserError("FILE", str(file), "it does not name the student of its rollouts", remedy)
    if len(set(students.values())) > 1:
        problem = f"the files come from several students: {', '.join(sorted(set(map(str, students.values()))))}"
        raise UserError(
            "--tokenizer", None, problem, "view them separately, or name a model whose tokenizer decodes all of them"
        )
    return str(students[files[0]]), "FILE"


def _view(file: Path, method: Method) -> View:
    batch = read_scored(file)
    check_method(file, batch, method)
    check_responses(file, batch)
    return View(batch, method.targets(batch), method.reasons(batch))

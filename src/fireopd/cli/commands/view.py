"""`fireopd view ROLLOUTS ... --out PAGE.html`: see what a method makes of each token of recorded rollouts.

Reads files of scored rollouts and writes one page that needs nothing else: every token coloured by its weight, its
advantage or what the models say of it. The method is plain OPD, or what --method or the options below say.
"""

from collections.abc import Sequence
from pathlib import Path

from fireopd.analysis.provenance import versions
from fireopd.analysis.recordings import read_scored, recorded_student
from fireopd.analysis.view import Page, View
from fireopd.atomic_files import check_folder
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.method_options import add_method_options, check_recorded, instantiate_method
from fireopd.cli.parser import Parser
from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.models.loading import load_tokenizer


def run(arguments: Sequence[str]) -> None:
    """Write the page."""
    load_plugins()
    parser = Parser(prog="fireopd view", description=__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, help="scored rollouts, as the RolloutRecorder callback writes them"
    )
    parser.add_argument("--out", type=Path, required=True, help="the page, an HTML file")
    parser.add_argument("--tokenizer", type=str | None, help="a model, for files that do not name their student")
    parser.add_argument(
        "--number", type=int | None, help="trajectories on the page; as many as fit into some megabytes"
    )
    add_method_options(parser)
    settings, method = instantiate_method(parser, parser.parse_args(list(arguments)))
    if settings.number is not None and settings.number < 1:
        raise UserError("--number", settings.number, "not a number of trajectories", "give 1 or more")
    check_folder(settings.out)
    tokenizer = load_tokenizer(*_tokenizer(settings.tokenizer, settings.files))
    views = sorted((_view(file, method) for file in settings.files), key=lambda view: view.batch.policy_version)
    facts = {
        "files": ", ".join(map(str, settings.files)),
        "method": " · ".join(map(str, method.strategies.values())),
        "normalization": method.normalization,
        "versions": versions(),
    }
    page = Page.of("What the method makes of each token", facts, views, tokenizer, settings.number)
    page.write(settings.out)
    size = settings.out.stat().st_size / 1e6
    print(f"{settings.out}: {len(page.rows)} trajectories, {size:.1f} MB. Open it in any browser.")


def _tokenizer(named: str | None, files: Sequence[Path]) -> tuple[str, str]:
    """Return the model whose tokenizer reads the files, and where its name comes from."""
    if named is not None:
        return named, "--tokenizer"
    students = {file: recorded_student(file) for file in files}
    for file, student in students.items():
        if student is None:
            remedy = "name the model that it comes from: --tokenizer tiny/student"
            raise UserError("FILE", str(file), "it does not say whose tokens it holds", remedy)
    if len(set(students.values())) > 1:
        problem = f"the files come from several students: {', '.join(sorted(set(map(str, students.values()))))}"
        raise UserError("--tokenizer", None, problem, "view them apart, or name one whose tokenizer reads them all")
    return str(students[files[0]]), "FILE"


def _view(file: Path, method: Method) -> View:
    batch = read_scored(file)
    check_recorded(method, file, batch)
    if not batch.response_mask.any():
        raise UserError("FILE", str(file), "it holds no response token", "record rollouts of a student")
    return View(batch, method.targets(batch), method.reasons(batch))

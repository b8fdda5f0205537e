"""`fireopd score FILE ... --teachers TEACHERS --out FOLDER`: add the scores of teachers to responses in files.

A FILE holds recorded rollouts (.safetensors), or lines of a prompt and its "response" (JSONL). For each, a file of
scored rollouts is written, on which `fireopd fit` trains without teachers (data.rollouts). TEACHERS is a mapping as in
model.teachers, for example '{math: {class_path: HFTeacher, init_args: {path: tiny/math}}}'; it may be part of a
file that --config names. Repeat the command to resume one that was stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from rich.console import Console

from fireopd.analysis.evaluate.output_folder import EvaluationFolder
from fireopd.analysis.score_files import ResponseFile, Student, check_teachers, file_digest, read_responses
from fireopd.atomic_files import locked, make_folder
from fireopd.cli.entry_points import load_plugins
from fireopd.cli.instantiation import instantiate
from fireopd.cli.parser import Parser
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer
from fireopd.teachers import HFTeacher, Teacher, deduplicate
from fireopd.teachers.base import leave_unsharded
from fireopd.training.recordings import recorded_student
from fireopd.training.run_settings import plain
from fireopd.training.stopwatch import Stopwatch

__all__ = ["run"]

KEY = "--teachers"
"""Option that holds the teachers."""
UNRELATED = ("config", "files", "out")
"""Options that do not affect the scores, apart from the content of the files."""


def run(arguments: Sequence[str]) -> None:
    """Score all files."""
    load_plugins()
    parser = _parser()
    given = parser.parse_args(list(arguments))
    settings = instantiate(parser, given)
    if not settings.teachers:
        raise UserError(KEY, {}, "no teacher", "name at least one")
    if settings.batch_size < 1:
        raise UserError("--batch_size", settings.batch_size, "not a number of responses", "give 1 or more")
    outputs = _outputs(settings.files, settings.out)
    name, key = _student(settings)
    student = Student(name, load_tokenizer(name, key), settings.chat_template_options)
    teachers = deduplicate(settings.teachers)
    only = next(iter(teachers)) if len(teachers) == 1 else None
    files = [read_responses(path, student, only) for path in settings.files]
    check_teachers(KEY, teachers, files, student.name)
    make_folder(settings.out)
    problem, remedy = "another command is writing into this folder", "wait for it, or use another folder"
    with locked("--out", settings.out, problem, remedy):
        models = {key: model for name, own in teachers.items() for key, model in own.models(name)}
        paths = {key: model.path for key, model in models.items() if isinstance(model, HFTeacher)}
        EvaluationFolder(settings.out).begin(_score_settings(given, outputs, student.name), paths)
        try:
            _score(files, outputs, teachers, student, settings.batch_size)
        except KeyboardInterrupt:
            print("Stopped. Repeat the command to resume.")
            sys.exit(130)


def _parser() -> Parser:
    parser = Parser(prog="fireopd score", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of these options; may be repeated")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recorded rollouts, or JSONL files")
    parser.add_argument("--teachers", type=dict[str, Teacher], required=True, help="teachers by the names of the rows")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder")
    parser.add_argument(
        "--student",
        type=str | None,
        default=None,
        help="model whose tokens are scored; default: that of a recording",
    )
    parser.add_argument(
        "--chat_template_options", type=dict[str, Any], default={}, help="for example {enable_thinking: false}"
    )
    parser.add_argument("--batch_size", type=int, default=256, help="responses that are scored and written together")
    return parser


def _outputs(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return the file to write for each file."""
    found = [folder / f"{path.stem}.safetensors" for path in files]
    for path, out in zip(files, found, strict=True):
        if found.count(out) > 1:
            raise UserError("FILE", str(path), "another file has the same name", "score them into different folders")
        if out.resolve() == path.resolve():
            raise UserError("--out", str(folder), f"it is the folder of {path}", "give another folder")
    return found


def _student(settings: Namespace) -> tuple[str, str]:
    """Return the student, and the setting that names it."""
    if settings.student is not None:
        return settings.student, "--student"
    names = {recorded_student(path) for path in settings.files if path.suffix == ".safetensors"}
    if len(names) != 1 or None in names:
        problem = (
            "the files name no student" if names <= {None} else f"the files name {', '.join(sorted(map(str, names)))}"
        )
        raise UserError("--student", None, problem, "name the model whose tokens are scored: --student tiny/student")
    return str(names.pop()), "FILE"


def _score_settings(given: Namespace, outputs: Sequence[Path], student: str) -> dict[str, Any]:
    """Return the settings that affect the scores, with the content of the files."""
    kept = {name: value for name, value in vars(given).items() if name not in UNRELATED}
    digests = {out.name: file_digest(path) for path, out in zip(given.files, outputs, strict=True)}
    return plain(kept) | {"student": student, "files": digests}


def _score(
    files: Sequence[ResponseFile], outputs: Sequence[Path], teachers: dict[str, Teacher], student: Student, rows: int
) -> None:
    """Score the files that have no scores yet; without one, no teacher is loaded."""
    console = Console()
    missing = [(file, out) for file, out in zip(files, outputs, strict=True) if not out.exists()]
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    watch = Stopwatch()
    try:
        if missing:
            for name, teacher in teachers.items():
                teacher.setup(f"{KEY}.{name}", device, leave_unsharded)
        for file, out in missing:
            file.score(teachers, out, student, rows, device, watch)
            number = len(file.rollouts.prompts)
            console.print(f"{out}: {number} responses", highlight=False, soft_wrap=True)
    finally:
        for teacher in teachers.values():
            teacher.close()
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in watch.seconds.items())
    console.print(f"All responses are scored{f' ({seconds})' if seconds else ''}.", highlight=False, soft_wrap=True)

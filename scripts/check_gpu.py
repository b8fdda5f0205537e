"""Numerics, speed and memory of fireopd on one GPU: `python scripts/check_gpu.py --out runs/gpu_check`.

Answers fourteen questions in at most eight minutes on one 80 GB card, each in a process and a time box of its own. A
question that fails is recorded, and the others are answered. Nothing is downloaded; models are embedded or random.
Requires the packages of `fireopd fit`, no vLLM; `trl` is optional. Writes `gpu_check.json` and `gpu_check.md` into the
output folder after each question. `--device cpu --small` tests the script itself on any machine.
"""

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path

# Asks the driver for the number of GPUs without initialising CUDA, which a forked process could not use any more.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "src")]  # a checkout need not be installed

from fireopd.atomic_files import write_text  # noqa: E402
from gpu_checks.questions import QUESTIONS, Answer, answer, cannot_fork, preload  # noqa: E402
from gpu_checks.report import to_json, to_line, to_markdown  # noqa: E402
from gpu_checks.sizes import Sizes  # noqa: E402

SHORTEST = 5.0
"""Remaining seconds below which a question is not asked."""


def main() -> None:
    """Ask the questions, print rows as they arrive, write the results; exit with code 1 if one was not finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [question.name for question in QUESTIONS]
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu (default: cuda)")
    parser.add_argument("--small", action="store_true", help="smallest sizes, for tests only")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument("--minutes", type=float, default=7.8, help="limit of all questions together (default: 7.8)")
    options = parser.parse_args()
    if options.device == "cpu" and not options.small:
        parser.error("--device cpu requires --small: the sizes are those of a GPU")
    sizes = Sizes.small(options.device) if options.small else Sizes(device_name=options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    answers = ask_all(sizes, options.only or names, options.minutes * 60, options.out)
    sys.exit(any(found.problem for found in answers.values()))


def ask_all(sizes: Sizes, names: list[str], limit: float, out: Path) -> dict[str, Answer]:
    """Ask the named questions within a number of seconds; write the results after each."""
    began, answers, method = time.monotonic(), dict[str, Answer](), "fork"
    preload()
    for question in QUESTIONS:
        if question.name not in names:
            continue
        print(f"{question.title} ({time.monotonic() - began:.0f} s)", flush=True)
        left = limit - (time.monotonic() - began)
        if left < SHORTEST:
            answers[question.name] = Answer(question.title, [], 0.0, "no time was left")
        else:
            settings = (question, sizes, min(question.seconds, left))
            found = answer(*settings, method, partial(print_row, time.monotonic()))
            if method == "fork" and cannot_fork(found):
                method = "spawn"
                found = answer(*settings, method, partial(print_row, time.monotonic()))
            answers[question.name] = found
        if answers[question.name].problem:
            print(f"  not finished: {answers[question.name].problem}", flush=True)
        seconds = time.monotonic() - began
        write_text(out / "gpu_check.json", to_json(sizes, answers, seconds))
        write_text(out / "gpu_check.md", to_markdown(sizes, answers, seconds))
    print(f"Written to {out}", flush=True)
    return answers


def print_row(began: float, row: dict[str, object]) -> None:
    """Print a row of a table, and the seconds since its question began."""
    print(f"{to_line(row)} ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()

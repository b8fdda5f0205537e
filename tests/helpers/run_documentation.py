"""Examples of the documentation, run in a process of their own.

`tests/docs/test_code_blocks.py` prepares the working folder. The results are written to results.json: the error of each
example by its name, empty if there is none.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import jsonargparse
import pytest
import torch
from helpers.documentation import Shell, blocks
from helpers.paths import ROOT

from fireopd.cli.main import main
from fireopd.prompts import TinyPrompts

PRINTED = ("--help", "-h", "--print_config")


class ParsedError(Exception):
    """Raised instead of the rest of a command."""


def prints(arguments):
    """Return whether a command only prints help or a configuration."""
    return any(word in PRINTED or word.endswith(".help") for word in arguments)


def run_command(arguments):
    """Run a command of fireopd, and raise if its exit code is not 0."""
    code = 0
    try:
        main(arguments)
    except SystemExit as end:
        code = end.code
    assert not code, f"fireopd {' '.join(arguments)}: exit code {code}"


def parse_command(arguments):
    """Parse the arguments of a command of fireopd, and stop there; printed help counts."""

    def stop_after(parse):
        def parse_args(self, *positional, **options):
            parse(self, *positional, **options)
            raise ParsedError

        return parse_args

    with contextlib.ExitStack() as stack:
        for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            stack.enter_context(patch.object(parser, "parse_args", stop_after(parser.parse_args)))
        try:
            run_command(arguments)
        except ParsedError:
            return
    assert prints(arguments), f"fireopd {' '.join(arguments)} did not parse its arguments"


def few_prompts():
    """Return a patch by which the embedded tasks give no more than 256 training prompts."""
    draw = TinyPrompts.training

    def training(self, seed):
        return draw(replace(self, num_training=min(self.num_training, 256)), seed)

    return patch.object(TinyPrompts, "training", training)


def run_page(name, folder):
    """Execute the Python blocks of a page, in order, as one module whose lines are those of the page."""
    path = ROOT / name
    lines = [""] * (path.read_text().count("\n") + 2)
    for block in blocks(path):
        if block.language == "python" and not block.gpu and not block.caption:
            lines[block.line - 1 : block.line - 1 + block.text.count("\n")] = block.text.splitlines()
    module_name = "page_" + name.removesuffix(".md").replace("/", "_")
    source = folder / f"{module_name}.py"
    source.write_text("\n".join(lines))
    spec = importlib.util.spec_from_file_location(module_name, source)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # classes are pickled by the name of their module
    spec.loader.exec_module(module)


def run_tests(folder):
    """Run the tests of the example package."""
    assert pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", "-c", os.devnull, str(folder / "tests")]) == 0


def jobs_of(folder) -> dict[str, Callable[[], None]]:
    """Return all examples by name."""
    jobs = {}
    for name in json.loads((folder / "pages.json").read_text()):
        jobs[name] = lambda name=name: run_page(name, folder)
    for path in sorted(folder.glob("package/*.yaml")):
        words = ["check", "--config", str(ROOT / "configs/multi_teacher.yaml"), "--config", str(path)]
        jobs[path.name] = lambda words=words: run_command(words)
    for page in sorted((ROOT / "docs" / "plugins").glob("*.md")):
        shell = Shell(folder / f"shell_{page.stem}")
        for block in blocks(page):
            for command in shell.commands(block) if block.language == "bash" else ():
                if command[0] != "fireopd":
                    continue
                words = [
                    word.replace("../", f"{shell.folder}/").replace("configs/", f"{ROOT}/configs/") for word in command
                ]
                job = parse_command if block.gpu else run_command
                jobs[f"{page.stem}: {' '.join(command)}"] = lambda job=job, words=words: job(words[1:])
    jobs["tests"] = lambda: run_tests(folder / "package")
    return jobs


def run(folder):
    """Run all examples, and write the results."""
    torch.set_num_threads(1)
    results = {}
    for name, job in jobs_of(folder).items():
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), few_prompts():
                job()
            results[name] = ""
        except BaseException:
            results[name] = f"{output.getvalue()}\n{traceback.format_exc()}"
    (folder / "results.json").write_text(json.dumps(results))

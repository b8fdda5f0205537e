"""Pages of the documentation, their code blocks, and the commands in their shell blocks."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

from helpers.paths import ROOT

FENCE = re.compile(r"^(?P<indent>\s*)(?P<mark>`{3,}|:{3,})(?P<info>.*)$")
OPTION = re.compile(r"^\s*:([\w-]+):\s*(.*)$")
PROGRAMS = ("fireopd", "pip", "pytest", "sbatch", "bash", "tensorboard", "sphinx-build", "pre-commit", "python3.11")
"""Programs that shell blocks call; they are recorded and not run."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    """Path of the page in the checkout."""
    line: int
    """Line of its first line of text, from 1."""
    language: str
    """Such as `python`; a directive such as `{toctree}` in its braces."""
    text: str
    options: dict[str, str] = field(default_factory=dict)
    """Options of the directive, such as `class` and `caption`."""

    @property
    def gpu(self):
        """True for blocks that need hardware, models or data that the checkout does not have."""
        return "gpu" in self.options.get("class", "").split()

    @property
    def caption(self):
        """Path of the file that the block is the content of; empty if it is not a file."""
        return self.options.get("caption", "")


def pages():
    """Return the README, the rules for contributors and all pages below docs/, notebooks included."""
    docs = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]


def blocks(page):
    """Return the fenced blocks of a page."""
    lines, found, number = page.read_text().splitlines(), [], 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        number += 1
        if not opening:
            continue
        options, body = {}, []
        closing = re.compile(rf"^\s*{re.escape(opening['mark'][0])}{{{len(opening['mark'])},}}\s*$")
        directive = opening["info"].strip().startswith("{")
        while directive and number < len(lines) and (option := OPTION.match(lines[number])):
            options[option[1]] = option[2]
            number += 1
        first = number
        while number < len(lines) and not closing.match(lines[number]):
            body.append(lines[number].removeprefix(opening["indent"]))
            number += 1
        number += 1
        language = re.sub(r"^\{code-block\}\s*", "", opening["info"].strip())
        text = "\n".join(body) + "\n"
        found.append(Block(str(page.relative_to(ROOT)), first + 1, language, text, options))
    return found


def prose(page):
    """Return the text of a page with fenced blocks left out, line for line."""
    lines = page.read_text().splitlines()
    for block in blocks(page):
        for number in range(block.line - 2, block.line + block.text.count("\n")):
            if number < len(lines):
                lines[number] = ""
    return "\n".join(lines)


class Shell:
    """A copy of the checkout in which shell blocks run with recorded programs."""

    def __init__(self, folder):
        self.folder, self.record = folder / "checkout", folder / "record"
        programs = folder / "bin"
        (self.folder / ".venv" / "bin").mkdir(parents=True)
        (self.folder / ".venv" / "bin" / "activate").touch()
        for name in ("configs", "scripts"):
            (self.folder / name).symlink_to(ROOT / name)
        programs.mkdir()
        script = '#!/bin/sh\n{ printf "%s\\0" "$(basename "$0")" "$@"; printf "\\n\\0"; } >> "$RECORD"\n'
        for name in (*PROGRAMS, "python"):
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        small = 'case "$1" in *make_verl_data.py) exec ' + f'{sys.executable} "$@" --train 64 --val 2;; esac\n'
        (programs / "python").write_text(script + small)
        self.environment = {"PATH": f"{programs}:/usr/bin:/bin", "RECORD": str(self.record), "HOME": str(folder)}

    def commands(self, block):
        """Run a block, and return the recorded commands, each a list of words."""
        self.record.write_text("")
        done = subprocess.run(
            [shutil.which("bash"), "-ec", block.text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{block.page}:{block.line}: {done.stderr}"
        return [part.split("\0")[:-1] for part in self.record.read_text().split("\n\0") if part]

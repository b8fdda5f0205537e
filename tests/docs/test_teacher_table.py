"""The table of methods and teachers in docs/teachers.md says what strategies and teachers declare."""

import re

import pytest
import yaml
from helpers.paths import CONFIGS

from fireopd import filters, objectives, weighters
from fireopd.errors import UserError
from fireopd.objectives import DirectObjective
from fireopd.teachers import HFTeacher, MixtureTeacher, StudentTeacher, VLLMTeacher
from fireopd.types.signals import JOINT

PAGE = (CONFIGS.parent / "docs" / "teachers.md").read_text().partition("## Methods and teachers")[2]
MODEL, SERVED = HFTeacher("tiny/math"), VLLMTeacher("tiny/math")
KINDS = [MODEL, StudentTeacher(), MixtureTeacher({"a": MODEL, "b": StudentTeacher()}), SERVED]
KINDS += [MixtureTeacher({"a": MODEL, "b": SERVED})]


def strategy(written, package):
    """Return a strategy as an overlay writes it."""
    name, settings = (written, {}) if isinstance(written, str) else (written["class_path"], written["init_args"])
    made = {
        key: [strategy(own, package) for own in value] if isinstance(value, list) else value
        for key, value in settings.items()
    }
    return getattr(package, name)(**made)


def needs(path):
    """Return what an overlay reads of its teachers."""
    model = yaml.safe_load(path.read_text())["model"]
    rooms = {"trajectory_filter": filters, "token_weighter": weighters, "objective": objectives}
    parts = [strategy(model[name], room) for name, room in rooms.items()]
    reads = frozenset().union(*(part.requires for part in parts))
    if isinstance(parts[2], DirectObjective) or reads & JOINT:
        return "Distributions"
    if "teacher_entropy" in reads:
        return "Entropies"
    return "Log-probabilities" if "teacher_logprobs" in reads else "nothing"


@pytest.mark.parametrize("need", ["Log-probabilities", "Entropies", "Distributions"])
def test_overlays_are_listed_by_what_they_read(need):
    listed = re.search(rf"^- {need}: (.*?)\.\n", PAGE, re.DOTALL | re.MULTILINE)[1]
    expected = {path.stem for path in CONFIGS.glob("methods/*.yaml") if needs(path) == need}
    assert set(re.findall(r"`(\w+)`", listed)) == expected


@pytest.mark.parametrize(("row", "check"), [("entropies", "check_entropy"), ("distributions", "check_distributions")])
def test_each_kind_of_teacher_gives_what_the_table_says(row, check):
    cells = re.search(rf"^\| {row} \|(.*)\|$", PAGE, re.MULTILINE)[1].split("|")[:-1]  # no recorded scores
    for teacher, cell in zip(KINDS, cells, strict=True):
        if cell.strip() == "yes":
            getattr(teacher, check)("model.teachers.x", "tiny/student")
        else:
            with pytest.raises(UserError, match="model.teachers.x"):
                getattr(teacher, check)("model.teachers.x", "tiny/student")

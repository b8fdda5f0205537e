"""Links, paths and names in README, CONTRIBUTING and the documentation exist."""

import re
from importlib import import_module

import pytest
from helpers.documentation import pages, prose
from helpers.paths import ROOT

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:configs|scripts|tests|docs|src|callbacks)/[\w./-]*\w/?|\.ci/run|[A-Z]+\.md")
NAME = re.compile(r"(?:\{py:\w+\})?~?(fireopd(?:\.\w+)+)")
MADE = ("docs/_build", "src/my_plugins")
"""Paths that a command or a reader makes."""
NAMES = [str(page.relative_to(ROOT)) for page in pages()]


def anchors(page):
    """Return the anchors of a page: headings as MyST and GitHub name them, and explicit labels."""
    text = page.read_text()
    found = set(re.findall(r"^\((.+)\)=$", text, re.M))
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        words = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(words.replace(" ", "-"))
    return found


def resolves(name):
    """Return whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[number:]:
            fields = getattr(value, "__dataclass_fields__", {})
            if not hasattr(value, attribute) and attribute not in fields:
                return False
            value = getattr(value, attribute, None)
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_internal_links_lead_somewhere(name):
    page = ROOT / name
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{name}: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{name}: {target}; there are {sorted(anchors(place))}"


@pytest.mark.parametrize("name", NAMES)
def test_paths_in_the_text_exist(name):
    for code in CODE.findall(prose(ROOT / name)):
        if PATH.fullmatch(code) and not code.startswith(MADE):
            assert (ROOT / code).exists() or ((ROOT / name).parent / code).exists(), f"{name}: {code}"


@pytest.mark.parametrize("name", NAMES)
def test_dotted_names_exist(name):
    for code in CODE.findall(prose(ROOT / name)):
        match = NAME.fullmatch(code)
        groups = ("filters", "weighters", "objectives", "teachers", "engines", "prompts", "verifiers")
        if match and match[1] not in {f"fireopd.{group}" for group in groups}:
            assert resolves(match[1]), f"{name}: {match[1]}"

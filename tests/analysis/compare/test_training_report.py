"""Report on trained methods: contents, and a self-contained page."""

import json
import re
from html.parser import HTMLParser

import pytest
from helpers.fake_runs import curves_of, stub, write_curves

from fireopd.analysis.compare.training_report import training_report


class Tags(HTMLParser):
    """Parser that checks the nesting of elements."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "path", "use", "image"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "image"):
            assert self.open.pop() == tag


@pytest.fixture
def planned(tmp_path):
    """Two methods with three seeds; one run is not finished."""
    runs = [stub(tmp_path, method, seed) for seed in (1, 2, 3) for method in ("opd", "<fire>")]
    for run in runs[:-1]:
        gain = 0.1 if run.method == "opd" else 0.1 + run.seed / 10
        write_curves(run.folder / "version_0", curves_of({0: 0.25, 10: 0.25 + gain}))
        (run.folder / "version_0" / "summary.json").write_text('{"seconds": 5}')
    return runs


def test_the_report_says_what_was_found_and_what_is_missing(planned, tmp_path):
    report = training_report(planned, [planned[-1]], "opd", "base.yaml")
    report.write(tmp_path)
    assert report.facts["missing"] == "<fire> seed 3 (failed)"
    assert report.facts["runs"] == "5 of 6 finished"
    found = json.loads((tmp_path / "comparison.json").read_text())
    (fire,) = (r for r in found["results"] if (r["task"], r["measure"], r["method"]) == ("math", "final", "<fire>"))
    assert fire["difference"]["values"] == pytest.approx({"1": 0.1, "2": 0.2})
    assert fire["verdict"] == "higher in all 2"
    assert found["runs"][0]["curves"]["val/math/avg_at_k"]["10"] == pytest.approx(0.35)
    table = (tmp_path / "table.md").read_text()
    assert "| final | <fire> | 2 | 0.150 | 0.100 | 0.200 | higher in all 2 |" in table
    names = ["differences", "learning_curves", "training_curves"]
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == names


def test_the_page_needs_nothing_else_and_calls_no_winner(planned, tmp_path):
    training_report(planned, [], "opd", "base.yaml").write(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|@import|src=|url\((?!#)", page)
    assert page.count("<svg") == 3
    assert "&lt;fire&gt;" in page
    assert "<fire>" not in page
    assert "currentColor" in page
    assert not re.search("better|worse|winner|significant", page)
    checker = Tags()
    checker.feed(page)
    assert checker.open == []


def test_one_seed_has_no_interval(planned, tmp_path):
    table = training_report(planned[:2], [], "opd", "base.yaml").tables[1].to_markdown()
    assert "no interval: 1 common seed" in table
    assert "higher" not in table.split("|", 1)[1]

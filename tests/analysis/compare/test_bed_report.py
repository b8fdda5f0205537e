"""Reports on test beds and on varied settings."""

import json
from dataclasses import replace

import pytest
from helpers.fake_runs import curves_of, stub, write_curves

from fireopd.analysis.compare.bed_report import bed_report
from fireopd.analysis.compare.condition_results import Outcome, outcomes, read_finished, regrets
from fireopd.analysis.compare.conditions import variations
from fireopd.analysis.compare.sensitivity_report import sensitivity_report
from fireopd.analysis.compare.simultaneous_intervals import simultaneous_difference

GAINS = {("junk", "opd"): 0.2, ("junk", "fire"): 0.4, ("weak", "opd"): 0.3, ("weak", "fire"): 0.0}


def finished(tmp_path, condition, method, seed, gain):
    """Return a finished run in which only `math` changes, from 0.25."""
    settings = {"data.batch_size": 8, "data.responses_per_prompt": 2}
    folder = tmp_path / "runs" / condition / method / f"seed_{seed}"
    run = replace(stub(tmp_path, method, seed), condition=condition, folder=folder, settings=settings)
    write_curves(folder / "version_0", curves_of({0: 0.25, 10: 0.25 + gain + seed / 100}))
    (folder / "version_0" / "summary.json").write_text('{"seconds": 5}')
    return run


@pytest.fixture
def planned(tmp_path):
    runs = [finished(tmp_path, *place, seed, gain) for seed in (1, 2, 3) for place, gain in GAINS.items()]
    return [*runs, replace(runs[-1], seed=4, folder=tmp_path / "nowhere")]


def test_the_matrix_pairs_each_bed_by_seed(planned, tmp_path):
    report = bed_report(planned, [planned[-1]], "opd", "base.yaml")
    assert report.facts["missing"] == "weak fire seed 4 (failed)"
    assert report.title == "2 methods on 2 test beds, 4 seeds"
    assert report.facts["comparisons"] == "2"
    assert report.facts["least worst regret"] == "opd: 0.100, on junk"
    matrix, methods, *_ = report.tables
    assert list(matrix.columns) == ["method", "junk", "weak"]
    ((name, junk, weak),) = matrix.rows
    # The mean of both tasks moves by half of the change of math, the same for all seeds: intervals of length 0.
    assert (name, junk.value, junk.mark, weak.value, weak.mark) == (
        *("fire", pytest.approx(0.1), "▲"),
        *(pytest.approx(-0.15), "▼"),
    )
    assert junk.error == pytest.approx(0, abs=1e-12)
    (fire,) = (row for row in methods.rows if row[0] == "fire")
    assert fire[6:8] == [pytest.approx(0.15), "weak"]
    assert fire[8:] == [pytest.approx((10 + 30) * 16 / 1000), 5.0]
    report.write(tmp_path)
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert {(o["condition"], o["method"]) for o in found["final"]} == set(GAINS)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") == len(report.plots) == 3
    assert "http:" not in page
    assert "https:" not in page


@pytest.mark.parametrize(
    ("values", "comparisons", "mark"),
    [
        ([0.10, 0.12, 0.14], 1, "▲"),  # standard error 0.0115; 0.05 with a quantile of 4.3, 0.36 with one of 31.6
        ([0.10, 0.12, 0.14], 50, "△"),
        ([-0.10, -0.12, -0.14], 50, "▽"),
        ([-0.12, -0.12, -0.12], 50, "▼"),
        ([-0.02, 0.12, 0.14], 1, ""),
        ([0.12], 1, ""),
    ],
)
def test_marks_tell_intervals_of_all_differences_from_those_of_one(values, comparisons, mark):
    own, zero = dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0)
    intervals = [simultaneous_difference(own, zero, number) for number in (comparisons, 1)]
    assert Outcome("bed", "fire", own, 0.0, None, None, *intervals).mark == mark


def test_regret_is_the_distance_to_the_best_method_of_a_bed(planned):
    runs = read_finished(planned)
    found = regrets(outcomes(runs, "all tasks", "final", {}))
    assert found["opd"].by_condition == pytest.approx({"junk": 0.1, "weak": 0.0})
    assert found["fire"].by_condition == pytest.approx({"junk": 0.0, "weak": 0.15})


@pytest.mark.parametrize(
    ("texts", "methods"), [(["data.share=0,0.5"], ["opd"]), (["data.share=0,0.5", "model.x=A,B"], ["opd", "fire"])]
)
def test_sensitivity_to_one_setting_and_to_two(tmp_path, texts, methods):
    conditions = variations(texts)
    places = [(condition.name, method) for condition in conditions for method in methods]
    runs = [finished(tmp_path, *place, seed, 0.1 * row) for seed in (1, 2) for row, place in enumerate(places)]
    report = sensitivity_report(runs, [], "opd", "base.yaml", conditions)
    final = report.tables[0]
    assert len(final.rows) == len(places)
    differences = [row[len(texts) + 3] for row in final.rows]
    several = len(methods) > 1
    assert differences[: 2 + several] == [None, pytest.approx(0.05), None][: 2 + several]
    report.write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["values"][conditions[1].name]

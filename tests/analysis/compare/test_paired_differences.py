"""Paired differences of measures over seeds, and bands of curves."""

import pytest
from helpers.fake_runs import run_of

from fireopd.analysis.compare.paired_differences import Band, band, results, smoothed
from fireopd.analysis.compare.run_results import OVERALL


def test_results_are_paired_by_seed_and_name_what_is_missing():
    runs = [run_of("opd", seed, {0: 0.1, 10: 0.5 + seed / 10}) for seed in (1, 2, 3)]
    runs += [run_of("fire", seed, {0: 0.1, 10: 0.6 + seed / 10}) for seed in (1, 3)]
    found = {(r.task, r.measure, r.method): r for r in results(runs, "opd")}
    fire = found["math", "final", "fire"]
    assert fire.values == pytest.approx({1: 0.7, 3: 0.9})
    assert (fire.mean, fire.standard_error) == pytest.approx((0.8, 0.1))
    assert fire.difference.values == pytest.approx({1: 0.1, 3: 0.1})
    assert (fire.difference.low, fire.difference.high) == pytest.approx((0.1, 0.1))
    assert fire.difference.verdict == "higher in all 2"
    assert found["math", "final", "opd"].difference is None
    assert found["code", "final", "fire"].difference.verdict == "no difference shown"
    assert next(iter(found)) == (OVERALL, "final", "opd")


def test_bands_are_over_common_steps():
    runs = [run_of("opd", 1, {0: 0.0, 5: 0.4, 10: 0.8}), run_of("opd", 2, {0: 0.2, 10: 0.4, 20: 1.0})]
    found = band(runs, "val/math/avg_at_k")
    assert (found.steps, found.lowest, found.highest) == ([0, 10], [0.0, 0.4], [0.2, 0.8])
    assert found.mean == pytest.approx([0.1, 0.6])
    assert band(runs, "nothing") is None
    assert isinstance(band(runs[:1], "rollout/length"), Band)


def test_smoothing_is_symmetric_so_that_a_line_stays_a_line():
    line = {step: 2.0 * step for step in range(9)}
    assert smoothed(line, 5) == pytest.approx(line)
    assert smoothed({1: 0.0, 2: 3.0, 7: 0.0}, 3) == {1: 0.0, 2: 1.0, 7: 0.0}
    assert smoothed(line, 1) == line

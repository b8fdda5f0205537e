"""Results of a run, read from its folder."""

import pytest
from helpers.fake_runs import run_of, write_curves

from fireopd.analysis.compare.run_results import OVERALL, is_finished, read_curves, read_run


def test_measures_of_a_run():
    run = run_of("opd", 1, {0: 0.2, 5: 0.8, 10: 0.6}, **{"val/math/accuracy_given_finish": {5: 0.9, 10: 0.7}})
    values = run.measures()
    assert run.tasks == ["code", "math"]
    assert (values["math", "final"], values["math", "peak"]) == (0.6, 0.8)
    assert values[OVERALL, "final"] == pytest.approx(0.55)
    assert values["math", "accuracy_given_finish"] == 0.7
    assert (OVERALL, "accuracy_given_finish") not in values, "a mean over tasks needs all of them"
    assert values["math", "finished"] == 0.5
    assert (values[OVERALL, "length"], values[OVERALL, "training_length"], values[OVERALL, "seconds"]) == (20, 20, 7)


def test_accuracy_given_finish_is_not_taken_from_an_earlier_validation():
    run = run_of("opd", 1, {0: 0.2, 10: 0.0}, **{"val/math/accuracy_given_finish": {0: 0.9}})
    assert ("math", "accuracy_given_finish") not in run.measures()


def test_a_run_in_parts_is_read_as_one(tmp_path):
    write_curves(tmp_path / "version_0", {"train/loss": {1: 1.0, 2: 2.0, 9: 9.0}, "val/math/avg_at_k": {0: 0.25}})
    write_curves(tmp_path / "version_1", {"train/loss": {2: 20.0, 3: 30.0, 4: 40.0}})
    (tmp_path / "version_10").mkdir()
    write_curves(tmp_path / "version_10", {"train/loss": {4: 400.0}})
    curves = read_curves(tmp_path)
    assert curves == {"train/loss": {1: 1.0, 2: 20.0, 3: 30.0, 4: 400.0}, "val/math/avg_at_k": {0: 0.25}}
    assert not is_finished(tmp_path)
    (tmp_path / "version_10" / "summary.json").write_text('{"seconds": 3.5}')
    assert is_finished(tmp_path)
    assert read_run("opd", 1, tmp_path).seconds == 3.5

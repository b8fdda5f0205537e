"""Metrics of an evaluation against naive computations, and verdicts on differences."""

import json
from statistics import fmean, stdev

import pytest
import torch

from fireopd.analysis.evaluate.records import ProblemRecord, ResponseRecord
from fireopd.analysis.evaluate.report import tables, write_report
from fireopd.analysis.evaluate.summary import AVERAGE, measure, summarise


def record(name, *responses):
    """Return the record of a problem with (reward, final answer, finished, tokens) responses."""
    found = tuple(ResponseRecord("", t, f, None if r is None else float(r), a, 0) for r, a, f, t in responses)
    return ProblemRecord(f"b:{name}", "", None if found[0].reward is None else "1", found)


RIGHT, WRONG, CUT, LUCKY = (1, "1", True, 4), (0, "2", True, 6), (0, None, False, 10), (1, "1", False, 10)
ROWS = [record(1, RIGHT, RIGHT, WRONG), record(2, WRONG, WRONG, RIGHT), record(3, CUT, CUT, LUCKY)]


def values(numbers):
    return {name: number.value for name, number in numbers.items()}


def test_numbers_of_three_problems_by_hand():
    found = values(measure(ROWS, [2, 3], seed=0))
    assert found == pytest.approx(
        {
            "avg@3": (2 / 3 + 1 / 3 + 1 / 3) / 3,
            "pass@2": (1 + 2 / 3 + 2 / 3) / 3,
            "pass@3": 1,
            "maj@3": (1 + 0 + 1) / 3,
            "accuracy_given_finish": 3 / 6,
            "finished": 2 / 3,
            "length": (14 + 16 + 30) / 9,
        }
    )


def test_standard_errors_are_those_of_the_mean_over_problems():
    found = measure(ROWS, [2], seed=0)
    per_problem = [2 / 3, 1 / 3, 1 / 3]
    assert found["avg@3"].value == pytest.approx(fmean(per_problem))
    assert found["avg@3"].error == pytest.approx(stdev(per_problem) / 3**0.5)


def test_without_answers_nothing_is_said_of_right_ones():
    rows = [record(1, (None, "1", True, 3)), record(2, (None, None, False, 5))]
    assert values(measure(rows, [1], seed=0)) == {"finished": 0.5, "length": 4}


def test_where_nothing_is_finished_there_is_no_accuracy_of_it():
    assert "accuracy_given_finish" not in measure([record(1, CUT), record(2, LUCKY)], [], seed=0)


def test_one_problem_has_neither_error_nor_interval():
    number = measure(ROWS[:1], [], seed=0)["avg@3"]
    assert (number.error, number.interval) == (None, None)


def graded(rewards):
    return [record(i, (reward, str(reward), True, 3)) for i, reward in enumerate(rewards)]


def test_differences_are_taken_problem_by_problem():
    """Two models that differ on one problem in forty: the paired interval still contains 0."""
    base = [0, 1] * 20
    summary = summarise({"b": {"one": graded(base), "two": graded([1, *base[1:]]), "far": graded([1] * 40)}}, [])
    difference = summary.differences("b")
    assert difference["two"]["avg@1"].value == pytest.approx(1 / 40)
    assert difference["two"]["avg@1"].interval == pytest.approx((0, 0.1), abs=0.03)
    assert difference["two"]["avg@1"].verdict == "no difference shown"
    assert difference["far"]["avg@1"].verdict == "higher"
    assert summary.control == "one"
    assert "one" not in difference


def test_a_model_does_not_differ_from_itself():
    generator = torch.Generator().manual_seed(0)
    rows = [
        record(
            i, *((int(r), str(int(r)), bool(f), 3) for r, f in torch.randint(2, (3, 2), generator=generator).tolist())
        )
        for i in range(20)
    ]
    summary = summarise({"b": {"one": rows, "two": list(rows)}}, [2])
    for number in summary.differences("b")["two"].values():
        assert (number.value, number.interval, number.verdict) == (0, (0, 0), "no difference shown")


def test_few_problems_bear_no_verdict():
    summary = summarise({"b": {"one": graded([0, 0, 0, 0]), "two": graded([1, 1, 1, 1])}}, [])
    assert summary.differences("b")["two"]["avg@1"].verdict == "no verdict: 4 problems"


def test_the_average_counts_every_benchmark_alike():
    records = {"small": {"m": graded([1, 1])}, "large": {"m": graded([0, 1] * 5)}}
    summary = summarise(records, [])
    number = summary.numbers[AVERAGE]["m"]["avg@1"]
    assert number.value == pytest.approx(0.75)
    assert number.error == pytest.approx(summary.numbers["large"]["m"]["avg@1"].error / 2)
    low, high = number.interval
    assert 0.5 <= low < 0.75 < high <= 1
    assert summary.problems == {"small": 2, "large": 10, AVERAGE: 12}


def test_tables_and_files_hold_everything(tmp_path):
    records = {"b": {"one": graded([0, 1] * 4), "two|2": graded([1] * 8)}}
    summary = summarise(records, [1])
    write_report(tmp_path, summary, {"models": {"one": "tiny/math"}, "responses": 1})
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["benchmarks"]["b"]["models"]["one"]["avg@1"]["value"] == 0.5
    assert found["benchmarks"]["b"]["differences"]["two|2"]["avg@1"]["value"] == 0.5
    text = (tmp_path / "table.md").read_text()
    assert "| b | two\\|2 | 1.000 ± 0.000 |" in text
    assert "- one: `tiny/math`\n- responses: 1\n" in text
    assert found["settings"]["responses"] == 1
    assert "all problems scored alike" in text, "two|2 is right on every problem"
    assert [table.title for table in tables(summary)] == ["Accuracy", "Responses", "Differences to one"]
    assert len(tables(summarise({"b": {"one": graded([0, 1])}}, []))) == 2


@pytest.mark.parametrize("word", ["better", "worse", "winner", "best"])
def test_nobody_wins(tmp_path, word):
    write_report(tmp_path, summarise({"b": {"one": graded([0] * 8), "two": graded([1] * 8)}}, []), {"models": {}})
    assert word not in (tmp_path / "table.md").read_text() + (tmp_path / "summary.json").read_text()

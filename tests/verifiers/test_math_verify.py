"""MathVerify: correct answers, and responses that must not hang or kill the trainer."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.paths import GOLDEN

from fireopd.errors import UserError
from fireopd.types import Prompt
from fireopd.verifiers import MathVerify
from fireopd.verifiers.workers import pool as workers

ANSWERS = [json.loads(line) for line in (GOLDEN / "math_answers.jsonl").read_text().splitlines()]
"""Reference answers that are hard to parse, from the files of MATH-500, Minerva Math, OlympiadBench, AMC
2023 and HMMT 2025 (February, November); `source` is file and line."""
BENCHMARKS = os.environ.get("FIREOPD_BENCHMARKS")
"""Folder of JSONL files with "answer"; all answers must verify against themselves."""


def prompt(answer):
    return Prompt((), "t", "math", answer, "0")


def grade(answer, response):
    return MathVerify()(prompt(answer), response)


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("7 + 5 = 12. The answer is \\boxed{12}.", 1.0),
        ("So she has 12 apples", 1.0),
        ("She has 12.0 dollars left", 1.0),
        ("\\boxed{5+7}", 1.0),
        ("First \\boxed{3}, no: \\boxed{12}", 1.0),
        ("\\boxed{12} and some words after it about 13", 1.0),
        ("12 apples and then 13", 0.0),
        ("\\boxed{13}", 0.0),
        ("It is 12, so \\boxed{unclear}", 0.0),
        ("\\boxed{12}, no: \\boxed{13}", 0.0),
        ("no number at all", 0.0),
        ("", 0.0),
    ],
)
def test_an_answer_is_right_if_it_is_mathematically_equal(response, right):
    assert grade("12", response) == right


def test_fractions_are_compared_exactly():
    assert grade("\\frac{1}{2}", "\\boxed{0.5}") == 1.0
    assert grade("1/2", "\\boxed{\\frac{2}{4}}") == 1.0
    assert grade("1/3", "\\boxed{0.33}") == 0.0


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        (r"\sqrt{3}", r"\sqrt{3}"),
        ("x^2+1", "1+x^2"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"$\frac{\pi}{2}$", r"\pi/2"),
        (r"\boxed{72}", "72"),
        ("1,000", "1000"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{(C)}", "C"),
        (r"5\text{ cm}", "5"),
        (r"\$18.90", "18.90"),
        (r"36^\circ", "36"),
        (r"10\%", "10"),
        (r"$-2,0,2$", "2, 0, -2"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
        (r"(-\infty, 0) \cup\{1\}.", r"\{1\} \cup (-\infty,0)"),
        ("x=5", "5"),
    ],
)
def test_reference_answers_are_read_whole_bare_latex_too(answer, same):
    assert grade(answer, rf"so the answer is \boxed{{{same}}}.") == 1.0
    assert grade(answer, r"so the answer is \boxed{3}.") == 0.0


RULES = {
    "an exact reference requires an exact value": [
        ("0.5", "1/2", True), ("12.0", "12", True), ("0.001", "10^{-3}", True), ("2^{0.5}", r"\sqrt2", True),
        ("0.5x+1", "x/2+1", True), ("(0.5,0.2)", "(1/2,1/5)", True), ("1.41421356", r"\sqrt{2}", False),
        ("0.3333333333", "1/3", False), ("3.14159265", r"\pi", False), ("(0.2,0.5)", "(1/2,1/5)", False),
        (r"\sqrt{2}\times10^{-30}", r"\sqrt{3}\times10^{-30}", False),
    ],
    "a decimal reference of three or more digits is rounded": [
        (r"\sqrt2", "1.414", True), ("1.4142", "1.414", True), (r"2.754 \times 10^{11}", "2.75e11", True),
        (r"1.325\times 10^{-27}", "1.325e-27", True), ("1.41", "1.414", False), ("1/3", "0.33", False),
        ("0.46", "0.5", False), (r"2.7 \times 10^{11}", "2.75e11", False), (r"1.4\times10^{-27}", "1.325e-27", False),
    ],
    "number formats": [
        ("1 1/2", "3/2", True), ("-1 1/2", "-1.5", True), ("1.5", "1 1/2", True), ("1 1/2", "1", False),
        (r"1\,000", "1000", True), ("1 000", "1,000", True), ("1000", r"1{,}000", True), (r"1\,000", "0", False),
        ("1e3", "1000", True), ("1.5e-3", "0.0015", True), ("0.0015", "1.5e-3", True), ("1e3", "3e", False),
        (r"0.\overline{3}", "1/3", True), ("1/3", r"0.\overline{3}", True), (r"0.1\overline{6}", r"\frac16", True),
        ("12 30", "12, 30", True), ("12 30", "42", False), ("12 30", "1230", False), ("42", "12 30", False),
        (r"0.\dot{3}", "0.(3)", True), (r"0.\overline{3}", "0.3", False), ("1,234.5", "2469/2", True),
    ],
    "units agree if both have one": [
        ("5 dollars", "5", True), ("5", r"5\text{ dollars}", True), ("5 apples", "5", True),
        (r"\$5", "5 dollars", True),
        (r"\$5", "5 euros", False), ("5 m", "5 cm", False), (r"5\text{ m}", r"5\text{ cm}", False),
        ("5 centimeters", "5 cm", True), ("5 square inches", r"5 \mbox{ inches}^2", True), ("5 cm", "5 cm^2", False),
        ("5 m/s", r"5 \mathrm{~m}\mathrm{~s}^{-1}", True), ("5 km/h", r"5\text{ km per hour}", True),
        ("36 degrees", r"36^\circ", True), ("36 radians", r"36^\circ", False), ("25 square units", "25", True),
        ("2t", "2", False), (r"\pi r^2 h", r"\pi r^2", False), ("x = 3 m", "3", True),
        ("6 m", "6m", True), ("6m", "$6m$", True), ("6", "$6m$", False),
    ],
    "percentages": [
        ("10%", "10", True), ("62.5", "62.5%", True), ("0.1", r"10\%", True), ("0.625", "62.5%", True),
        ("0.1%", "10%", False),
    ],
    "an equation counts by its last side": [
        ("x=5", "5", True), ("x+y=5", "5", True), ("f(2)=5", "5", True), ("2+3=5", "5", True), ("x=2+3=5", "5", True),
        (r"\frac{1}{3}=0.333", "0.333", True), ("6=5", "5", False), ("x=6=5", "5", False),
    ],
    "inequalities are intervals": [
        ("x<1", r"(-\infty,1)", True), (r"(-\infty,1)", "x<1", True), (r"x\in(-\infty,1)", "x<1", True),
        ("1<x<2", "(1,2)", True), (r"x\le 1", r"(-\infty,1)", False), ("x<1", r"(1,\infty)", False),
    ],
}  # fmt: skip
"""Rules of the documentation: answer, reference, and whether it is correct."""


@pytest.mark.parametrize("rule", RULES)
def test_rules_of_comparison(rule):
    rows = RULES[rule]
    grades = MathVerify().grade([prompt(r) for _, r, _ in rows], [rf"so it is \boxed{{{a}}}." for a, _, _ in rows])
    assert [row for row, result in zip(rows, grades, strict=True) if (result.reward == 1.0) is not row[2]] == []


def test_answers_without_a_box_follow_the_same_rules():
    rows = [
        ("She has 12.5 dollars left", "12.5", True), ("between 1.5 and 2.5", "2.5", True), ("it is $5 cm$", "5", True),
        ("The answer is 1 1/2", "3/2", True), ("The answer is 1e3", "1000", True), ("So 2^10", "1024", True),
        ("It is 10%", "0.1", True), ("It is 62.5%", "62.5", True), ("it is $x<1$", r"(-\infty,1)", True),
        (r"it is $5\text{ m}$", r"5\text{ cm}", False), ("it is $2t$", "2", False), ("it is 0.3333", "1/3", False),
        ("it is $6=5$", "5", False), ("Final answer: 6m", "$6m$", True), ("Final answer: 6m", "6", True),
        ("it is 6 m", "$6m$", True), ("it is 2t", "3t", False), ("it is 2t", "t", False), ("at 12:30", "12:30", True),
        ("at 12:30", "1:30", False), ("the 5 men", "$5m$", False),
    ]  # fmt: skip
    grades = MathVerify().grade([prompt(reference) for _, reference, _ in rows], [answer for answer, _, _ in rows])
    assert [row for row, result in zip(rows, grades, strict=True) if (result.reward == 1.0) is not row[2]] == []


@pytest.mark.parametrize(("answer", "other"), [("(1,2)", "(2,1)"), ("[0,1)", "[0,1]"), ("1,2", "1,2,3")])
def test_order_ends_and_number_of_values_count(answer, other):
    assert grade(answer, rf"\boxed{{{other}}}") == 0.0


def test_boxes_that_follow_one_another_are_one_answer():
    assert grade("1,2", r"$\boxed{1}$ and $\boxed{2}$") == 1.0
    assert grade("1,2", r"\boxed{1}, \quad \boxed{2}.") == 1.0
    assert grade("2", r"\boxed{1} would be wrong, it is \boxed{2}") == 1.0


def test_every_reference_verifies_against_itself_and_against_no_other():
    answers = [row["answer"] for row in ANSWERS]
    prompts = [prompt(answer) for answer in answers]
    own = MathVerify().grade(prompts, [f"We found $x=17$, so it is \\boxed{{{answer}}}." for answer in answers])
    assert [row["source"] for row, result in zip(ANSWERS, own, strict=True) if result.reward != 1.0] == []
    others = answers[1:] + answers[:1]
    wrong = MathVerify().grade(prompts, [f"\\boxed{{{answer}}}" for answer in others])
    assert [(a, b) for a, b, v in zip(answers, others, wrong, strict=True) if v.reward] == []


@pytest.mark.skipif(BENCHMARKS is None, reason="FIREOPD_BENCHMARKS names no folder")
def test_every_reference_of_whole_benchmarks_verifies_against_itself():
    lines = [line for path in sorted(Path(BENCHMARKS).glob("*.jsonl")) for line in path.read_text().splitlines()]
    answers = [str(json.loads(line)["answer"]) for line in lines]
    grades = MathVerify().grade([prompt(answer) for answer in answers], [f"\\boxed{{{a}}}" for a in answers])
    assert [answer for answer, result in zip(answers, grades, strict=True) if result.reward != 1.0] == []


def test_an_empty_reference_is_refused_before_the_run():
    with pytest.raises(UserError, match=r"ours: 'math.jsonl:3': its reference answer is empty. Give it an answer"):
        MathVerify().check("ours", [prompt("1"), Prompt((), "t", "math", " ", "math.jsonl:3")])
    assert grade("", "\\boxed{}") == 0.0


def test_without_a_reference_nothing_is_right():
    assert grade(None, "\\boxed{12}") == 0.0


def test_equal_expressions_are_one_vote():
    votes = [MathVerify().final_answer(text) for text in ("\\boxed{12}", "so it is 12", "13", "none")]
    assert votes == ["12", "12", "13", None]
    grades = MathVerify().grade([prompt("12")] * 2, ["\\boxed{12}", "13"])
    assert [result.answer for result in grades] == ["12", "13"]


HOSTILE = {
    "a power": r"\boxed{10^{10^{10}}}",
    "a tower": r"\boxed{9^{9^{9^{9^{9}}}}}",
    "a plain tower": "the answer is 9^9^9^9",
    "a factorial": r"\boxed{(10^{8})!}",
    "a sum": r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n^3+\sin n}}",
    "a polynomial": r"\boxed{(x+y+z+w)^{400}}",
    "deep braces": "\\boxed{" + "{" * 900 + "12" + "}" * 900 + "}",
    "very deep braces": "\\boxed{" + "{" * 100_000 + "12" + "}" * 100_000 + "}",
    "open boxes": "\\boxed{" * 150_000,
    "many boxes": "\\boxed{1}," * 100_000,
    "a megabyte of digits": "1" * 1_000_000,
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte for a regular expression": "final answer is" * 70_000,
    "many units": r"\boxed{12" + r" \text{m} m /" * 50_000 + "}",
    "odd characters": "\x00\ud800\\boxed{1\x00}",
    "code": "\\boxed{__import__('os').system('touch PLACE')}",
}


def test_nothing_that_a_student_can_write_hangs_or_kills_the_trainer(tmp_path):
    verifier = MathVerify(timeout=0.2)
    responses = [text.replace("PLACE", str(tmp_path / "touched")) for text in HOSTILE.values()]
    grades = verifier.grade([prompt("12")] * len(responses), responses)
    assert [result.reward for result in grades] == [0.0] * len(responses)
    assert not (tmp_path / "touched").exists()
    assert verifier(prompt("12"), "\\boxed{12}") == 1.0  # the workers that died have been replaced


def test_the_timeout_is_one_of_computing_time_even_in_code_that_python_cannot_interrupt():
    pool = workers.Pool("fireopd.verifiers.workers.math_worker", ("0.3",), 1)
    pool.greeting()
    [worker] = pool.idle.queue
    assert pool.ask([("12", "the answer is 9^9^9^9")], 600) is None
    assert worker.process.returncode == -signal.SIGPROF


def test_a_worker_that_does_not_answer_is_killed_and_replaced(monkeypatch):
    pool = workers.Pool("fireopd.verifiers.workers.math_worker", ("5.0",), 1)
    assert pool.ask([("12", "\\boxed{12}")], 60) == [1.0, "12"]
    worker = pool.idle.queue[0]
    os.kill(worker.process.pid, signal.SIGSTOP)
    assert pool.ask([("12", "\\boxed{12}")], 0.2) is None
    assert worker.process.returncode == -9
    assert pool.ask([("12", "\\boxed{12}")], 60) == [1.0, "12"]


def test_a_worker_that_cannot_start_is_an_error_and_no_wrong_answer():
    pool = workers.Pool("fireopd.verifiers.no_such_worker", (), 1)
    with pytest.raises(workers.WorkerError, match="no_such_worker"):
        pool.ask([None], 60)


def test_a_worker_that_cannot_start_is_refused_before_the_run(monkeypatch):
    monkeypatch.setattr(MathVerify, "module", "fireopd.verifiers.no_such_worker")
    with pytest.raises(UserError, match=r"ours: 'MathVerify': a worker of .* did not start: .*No module named .*Fix"):
        MathVerify().check("ours", [])


def test_a_worker_finds_the_libraries_of_its_python(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere/lib")
    monkeypatch.setenv("FIREOPD_SECRET", "secret")
    worker = workers.Worker("fireopd.verifiers.workers.math_worker", ("5.0",))
    variables = Path(f"/proc/{worker.process.pid}/environ").read_bytes().split(b"\0")
    worker.close()
    assert b"LD_LIBRARY_PATH=/nowhere/lib" in variables
    assert b"FIREOPD_SECRET=secret" not in variables


def test_threads_can_grade():
    grades = []
    threads = [threading.Thread(target=lambda: grades.append(grade("12", "\\boxed{12}"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert grades == [1.0] * 4


PROGRAM = """
import os, sys
import torch
from fireopd.types import Prompt
from fireopd.verifiers import MathVerify
from fireopd.verifiers.workers import pool as workers
torch.ones(2).sum()
prompt = Prompt((), "t", "math", "12", "0")
verifier = MathVerify(workers=1)
assert verifier(prompt, "12") == 1.0
if os.fork() == 0:
    os._exit(int(verifier(prompt, "12") == 1.0 and verifier(prompt, "13") == 0.0))
assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
assert verifier(prompt, "12") == 1.0
[worker] = workers.pool("fireopd.verifiers.workers.math_worker", ("5.0",), 1).idle.queue
print(worker.process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_workers_serve_a_forked_process_and_end_with_the_parent_however_it_ends():
    """The program has no `if __name__ == "__main__"`, uses torch, forks, and is killed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == -9, done.stderr
    wait_for_the_end_of(int(done.stdout))


def wait_for_the_end_of(process):
    """Return when a process has ended or is a zombie."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([descriptor], [], [], 300)
    os.close(descriptor)
    assert ended, f"process {process} is still there"


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"timeout must be above 0, got -1"):
        MathVerify(timeout=-1)
    with pytest.raises(ValueError, match=r"workers must be at least 1, got 0"):
        MathVerify(workers=0)

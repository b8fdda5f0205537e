"""Queue of runs, with short Python programs in place of runs."""

import io
import os
import signal

import pytest
from helpers.fake_runs import FINISH, stub
from rich.console import Console

from fireopd.analysis.compare.launchers import LocalLauncher
from fireopd.analysis.compare.run_queue import RunQueue, log_tail
from fireopd.atomic_files import is_locked, lock
from fireopd.errors import UserError


@pytest.fixture
def console():
    return Console(width=100, file=io.StringIO(), record=True)


def test_a_run_that_fails_is_reported_with_its_log_and_the_others_go_on(tmp_path, console):
    fails = stub(tmp_path, "bad", code="print('line one'); raise SystemExit(3)")
    silent = stub(tmp_path, "silent", code="print('no summary')")
    runs = [fails, stub(tmp_path, "good"), silent]
    queue = RunQueue(1, console)
    assert queue.train(runs, tmp_path) == [fails, silent]
    assert [run.finished for run in runs] == [False, True, False]
    assert log_tail(fails) == "line one"
    text = console.export_text()
    assert "bad seed 1: failed (exit code 3)" in text
    assert "good seed 1: finished" in text


def test_what_is_finished_is_not_run_again(tmp_path, console):
    done, new = stub(tmp_path, "done", code="raise SystemExit(1)"), stub(tmp_path, "new")
    (done.folder / "version_0").mkdir(parents=True)
    (done.folder / "version_0" / "summary.json").write_text("{}")
    assert RunQueue(2, console).train([done, new], tmp_path) == []
    assert not done.log.exists()


def test_runs_go_on_at_a_time_and_share_the_threads(tmp_path, console, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    meet = "open('here', 'w').close()\nwhile not os.path.exists('../../{}/seed_1/here'): time.sleep(0.01)\n"
    code = "print(os.environ['OMP_NUM_THREADS']); " + FINISH
    pairs = ("a", "b"), ("b", "a")
    runs = [stub(tmp_path, own, code=f"exec({meet.format(other)!r}); {code}") for own, other in pairs]
    assert RunQueue(2, console).train(runs, tmp_path) == []
    assert [log_tail(run) for run in runs] == ["2", "2"]


def test_ctrl_c_does_not_reach_the_runs_by_itself(tmp_path, console):
    run = stub(tmp_path, "a", code=f"print(os.getpgrp() == os.getpid()); {FINISH}")
    RunQueue(1, console).train([run], tmp_path)
    assert log_tail(run) == "True"


def test_an_interrupt_stops_the_runs_and_waits_for_them(tmp_path, console):
    code = (
        "import signal; signal.signal(signal.SIGTERM, lambda *a: (open('saved', 'w').close(), os._exit(1))); "
        f"os.kill({os.getpid()}, signal.SIGTERM); time.sleep(60)"
    )
    runs = [stub(tmp_path, "a", code=code), stub(tmp_path, "b")]
    queue = RunQueue(1, console)
    with pytest.raises(KeyboardInterrupt):
        queue.train(runs, tmp_path)
    assert (runs[0].folder / "saved").exists()
    assert queue.active[0].process.returncode == 1
    assert queue.failed == []
    assert not runs[1].folder.exists()
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_run_is_started_stops_that_run(tmp_path, console, number):
    class Interrupted(LocalLauncher):
        def start(self, run, lock):
            job = super().start(run, lock)
            signal.raise_signal(number)  # before the queue knows of the job
            return job

    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)
    queue = RunQueue(1, console, Interrupted(1))
    try:
        with pytest.raises(KeyboardInterrupt):
            queue.train([stub(tmp_path, "a", code="time.sleep(60)")], tmp_path)
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert [job.exit_code() for job in queue.active] == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before[1]


def test_a_folder_is_for_one_comparison_at_a_time(tmp_path, console):
    with lock(tmp_path), pytest.raises(UserError, match="another comparison, or a run of one, is using this folder"):
        RunQueue(1, console).train([stub(tmp_path, "a")], tmp_path)

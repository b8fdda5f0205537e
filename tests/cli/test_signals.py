"""Signals while a command imports its modules, in a process each."""

import signal
import subprocess
import sys
from threading import Thread

import pytest

from fireopd.cli.signals import ended_at_once, terminable

CODE = """
import os, signal, sys, time
from fireopd.cli.signals import ended_at_once
if sys.argv[2:]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
with ended_at_once():
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.1)
    except BaseException:  # as libraries do while they are imported
        pass
print("continued")
"""


def run(number, *more):
    command = [sys.executable, "-c", CODE, str(int(number)), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_import_whatever_it_catches(number):
    done = run(number)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


def test_a_signal_that_was_ignored_stays_ignored():
    """The shell starts background jobs so."""
    done = run(signal.SIGINT, "ignored")
    assert (done.returncode, done.stdout, done.stderr) == (0, "continued\n", "")


@pytest.mark.parametrize("context", [ended_at_once, terminable])
def test_the_handlers_are_as_before_afterwards_and_in_threads(context):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    entered = []

    def enter():
        with context():
            entered.append(True)

    enter()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    thread = Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True, True]

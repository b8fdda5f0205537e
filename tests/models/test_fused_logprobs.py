"""Fused log-probabilities: the cases in a process of their own, since Triton reads `TRITON_INTERPRET` at its import."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.paths import ROOT

pytest.importorskip("triton")


def test_cases_on_a_gpu_or_in_the_interpreter():
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    options = ["-n", "0", "-p", "no:cacheprovider", "--noconftest", "-W", "ignore::RuntimeWarning"]
    cases = ROOT / "tests" / "models" / "fused_logprobs_cases.py"
    command = [sys.executable, "-m", "pytest", *options, str(cases)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

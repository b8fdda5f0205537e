"""Fused log-probabilities: the cases in a process of their own, and the machine code of the kernels for an H100."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.paths import ROOT

pytest.importorskip("triton")

TYPES = {"target_ids": "*i64", "gradients": "*bf16", "first": "i32", "width": "i32"}
ALIGNED = [["tt.divisibility", 16]]


def test_cases_on_a_gpu_or_in_the_interpreter():
    """Triton reads `TRITON_INTERPRET` when it is imported."""
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    options = ["-n", "0", "-p", "no:cacheprovider", "--noconftest", "-W", "ignore::RuntimeWarning"]
    cases = ROOT / "tests" / "models" / "fused_logprobs_cases.py"
    command = [sys.executable, "-m", "pytest", *options, str(cases)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize(("name", "cap"), [("_fold", None), ("_to_gradient", 30.0)])
def test_kernels_compile_for_an_h100(tmp_path, monkeypatch, name, cap):
    """The interpreter accepts programs that the compiler does not. Compilation needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fireopd.models import fused_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(fused_kernels, name)
    constants = {"SCALE": 0.5, "CAP": cap, "TEMPERATURE": 0.7, "BLOCK": fused_kernels.BLOCK}
    signature = {
        argument: "constexpr" if argument in constants else TYPES.get(argument, "*fp32")
        for argument in kernel.arg_names
    }
    places = {argument: (place,) for place, argument in enumerate(kernel.arg_names)}
    settings = {places[argument]: value for argument, value in constants.items()}
    attributes = {place: ALIGNED for argument, place in places.items() if argument not in constants}
    source = ASTSource(kernel, signature, constexprs=settings, attrs=attributes)
    target = GPUTarget("cuda", 90, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": fused_kernels.WARPS})
    assert compiled.asm["cubin"]
    assert ".v4.b32" in compiled.asm["ptx"], "logits are read 16 bytes at a time"

"""Sandbox for untrusted code.

- `supervisor.py`: worker process that isolates itself and starts one sandbox process per program
- `sandbox_process.py`: the sandbox process, with its limits and isolation (`namespaces.py` or `landlock.py`, and
  `seccomp.py`)
- `program_runner.py`: process in which a program runs; `test_runner.py`: process that tests it; `remote_objects.py` and
  `value_codec.py`: objects and values that they exchange

The trainer imports nothing from here, and nothing here imports torch.
"""

__all__ = [
    "landlock",
    "namespaces",
    "program_runner",
    "readable_paths",
    "remote_objects",
    "sandbox_process",
    "seccomp",
    "supervisor",
    "syscalls",
    "test_runner",
    "value_codec",
]

"""Unit tests of programs, run in a sandbox."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from fireopd.errors import UserError
from fireopd.types import Prompt
from fireopd.verifiers.base import Grade, Verifier
from fireopd.verifiers.code_blocks import last_block
from fireopd.verifiers.test_cases import FORMAT, TestCases, read_tests
from fireopd.verifiers.workers import json_messages
from fireopd.verifiers.workers.pool import Pool, Worker, WorkerError, pool

__all__ = ["ISOLATIONS", "SUPERVISOR", "UnitTests", "strongest_isolation"]

SUPERVISOR = "fireopd.verifiers.sandbox.supervisor"
"""Module of the worker process that runs programs."""
ISOLATIONS = ("namespaces", "landlock")
"""Kinds of isolation, the strongest first."""
WEAK = "none"
"""Kind without isolation, with limits only."""
SANDBOX_SECONDS = 30.0
"""Time that the sandbox may take in addition to a program, seconds."""
LONGEST = json_messages.LONGEST // 2
"""Maximum size of the tests of a prompt as JSON, bytes; the rest of a message is for the program."""


@dataclass(frozen=True)
class UnitTests(Verifier):
    """Correct if the last fenced code block of the response passes all tests of the prompt.

    The answer of the prompt is a JSON object with one or both of

    - assertions on what the program defines: `{"tests": ["assert f(1) == 2", ...]}`, where the list may be one string
      of code, or HumanEval's `{"entry_point": "f", "test": "def check(candidate): ..."}`. "prelude" is optional code
      before both program and tests. The program provides only the names in "entry_point" (text or a list), without it
      the only name that nothing else defines, so that it cannot redefine what it is compared with. Tests run in a
      separate process, so that the program can neither read nor skip them. Arguments and results that are not plain
      data are passed by reference;
    - `{"inputs": [text, ...], "outputs": [text, ...]}`: the program runs with each input as its standard input, and
      must exit without an error and print the output; trailing spaces and trailing empty lines are ignored.

    All tests of a prompt may take 8 MiB. The untrusted code runs in one process, with threads, without network,
    environment variables, other processes, and files except Python's (see `isolation`).
    """

    cpu_seconds: int = 10
    """CPU time limit of a program, for each of "inputs", seconds."""
    wall_seconds: float = 60.0
    """Time limit of a program with all its tests, seconds."""
    memory_mib: int = 1024
    """Limit of the address space of a program, MiB."""
    disk_mib: int = 16
    """Limit of the in-memory folder of a program and of each file in it, MiB."""
    output_kib: int = 1024
    """Limit of the standard output of a program, KiB."""
    workers: int = 2
    """Number of programs that run in parallel."""
    allow_weak: bool = False
    """Run programs even if the machine supports no isolation; they can then read and write all files of the user."""

    def __post_init__(self) -> None:
        """Check the range of the settings."""
        for name, value in self._limits().items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if not self.wall_seconds > 0:
            raise ValueError(f"wall_seconds must be above 0, got {self.wall_seconds}")

    @property
    def isolation(self) -> str:
        """Isolation of programs: `namespaces`, `landlock` (programs cannot write files), or `none` (limits only)."""
        return strongest_isolation((*ISOLATIONS, WEAK) if self.allow_weak else ISOLATIONS)

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 for a correct response, else 0; without tests, return 0."""
        return self.grade([prompt], [response])[0].reward

    def final_answer(self, response: str) -> str | None:
        """Return the program, or None."""
        return last_block(response)

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Grade]:
        """Return the grades of responses; programs run in parallel.

        Raises:
            ValueError: if the answer of a prompt has no valid tests.
            WorkerError: if this machine supports no isolation.
        """
        programs = [last_block(response) for response in responses]
        jobs = [self._jobs(prompt, program) for prompt, program in zip(prompts, programs, strict=True)]
        answers = iter(
            self._pool().ask_all([job for row in jobs for job, _ in row], self.wall_seconds + SANDBOX_SECONDS)
        )
        passed = [
            [_matches(prompt, next(answers), expected) for _, expected in row]
            for prompt, row in zip(prompts, jobs, strict=True)
        ]
        return [Grade(float(row != [] and all(row)), p) for row, p in zip(passed, programs, strict=True)]

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that a program can pass the tests of all prompts, and that this machine supports isolation."""
        for prompt in prompts:
            self._check_tests(key, prompt)
        try:
            self._pool().greeting()
        except WorkerError as error:
            problem = f"programs could read and change your files, since no sandbox is available ({error})"
            remedy = (
                "allow user namespaces, use Linux 6.2 or newer, or set it to true on a machine without valuable data"
            )
            raise UserError(f"{key}.allow_weak", self.allow_weak, problem, remedy) from error

    def _check_tests(self, key: str, prompt: Prompt) -> None:
        try:
            tests = _tests(prompt)
        except ValueError as error:
            raise UserError(key, prompt.id, str(error), FORMAT) from error
        if tests is None:
            return
        if tests.code and not tests.names:
            problem = "its tests use no name that a program has to define"
            raise UserError(key, prompt.id, problem, 'name the function under test in "entry_point"')
        size = len(json.dumps(asdict(tests)))
        if size > LONGEST:
            raise UserError(key, prompt.id, f"its tests have {size} bytes, above {LONGEST}", "remove some tests")
        longest = max(
            (len("\n".join(_lines(text)).encode(errors="surrogateescape")) for text in tests.outputs), default=0
        )
        if longest > self.output_kib * 1024:
            problem = f"one of its outputs has {longest} bytes, and a program may write {self.output_kib} KiB"
            raise UserError(key, prompt.id, problem, f"raise {key}.output_kib")

    def _pool(self) -> Pool:
        return pool(SUPERVISOR, (self.isolation,), self.workers)

    def _limits(self) -> dict[str, int]:
        names = ("cpu_seconds", "memory_mib", "disk_mib", "output_kib")
        return dict(zip(names, (self.cpu_seconds, self.memory_mib, self.disk_mib, self.output_kib), strict=True))

    def _jobs(self, prompt: Prompt, program: str | None) -> list[tuple[list[Any], Any]]:
        """Return the jobs of the sandbox, each with the expected answer."""
        tests = _tests(prompt)
        if program is None or tests is None:
            return []
        jobs: list[tuple[list[Any], Any]] = []
        job = {"program": [program], "inputs": None, "limits": self._limits(), "wall_seconds": self.wall_seconds}
        if tests.code and tests.names:
            asked = {"code": tests.code, "prelude": tests.prelude, "names": tests.names}
            jobs.append(([job | {"program": [tests.prelude, program]}, asked], True))
        if tests.inputs:
            # Expected outputs never enter the sandbox.
            jobs.append(([job | {"inputs": tests.inputs}, None], tests.outputs))
        return jobs


@lru_cache
def strongest_isolation(isolations: tuple[str, ...]) -> str:
    """Return the first supported isolation, which all workers use.

    Raises:
        WorkerError: if none is supported.
    """
    worker = Worker(SUPERVISOR, isolations)
    worker.close()
    return str(worker.greeting)


def _tests(prompt: Prompt) -> TestCases | None:
    return None if prompt.answer is None else read_tests(prompt.answer)


def _matches(prompt: Prompt, answer: dict[str, Any] | None, expected: Any) -> bool:
    if answer is None:
        return False
    got = answer["answer"]
    if isinstance(got, str):
        message = f"{prompt.id}: counted as incorrect, since its tests need what the sandbox does not support: {got}"
        warnings.warn(message, stacklevel=2)
        return False
    if isinstance(expected, bool):
        return got is expected
    return len(got) == len(expected) and all(
        text is not None and _lines(text) == _lines(output) for text, output in zip(got, expected, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]

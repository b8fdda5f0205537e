"""Grading programs by running them on tests, in a sandbox."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fireopd.errors import UserError
from fireopd.types import Prompt
from fireopd.verifiers.base import Verdict, Verifier
from fireopd.verifiers.code_blocks import last_block
from fireopd.verifiers.required_names import asked, used
from fireopd.verifiers.workers import json_messages
from fireopd.verifiers.workers.pool import Pool, Worker, WorkerError, pool

JAILER = "fireopd.verifiers.sandbox.jailer"
ISOLATIONS = ("namespaces", "landlock")
"""What a machine may offer, the strongest first."""
WEAK = "none"
"""No isolation but limits."""
SLACK = 30.0
"""Seconds that the sandbox may take beyond a program's own time."""
LONGEST = json_messages.LONGEST // 2
"""Bytes that the tests of a prompt may have as JSON; the rest of a message is for the program."""
FORMAT = (
    'give JSON: {"tests": [...]}, also with "entry_point", {"entry_point": ..., "test": ...} or '
    '{"inputs": [...], "outputs": [...]}'
)


@dataclass(frozen=True)
class UnitTests(Verifier):
    """Right if the last fenced block of code of the response passes all tests of the prompt.

    The prompt's answer is JSON, an object of one or both of

    - tests that call what the program defines: `{"tests": ["assert f(1) == 2", ...]}`, or one text of code; or as in
      HumanEval `{"entry_point": "f", "test": "def check(candidate): ..."}`. "prelude" may give code that stands before
      both program and tests. Names of Python's own (`pow`, `copy`) are Python's in tests, so that no program redefines
      what it is compared with: for tests of a function of such a name, "entry_point" says that it is the program's.
      Tests run in a process of their own, so that the program can neither see nor skip them: arguments and results
      that are not plain data are referred to, and equal themselves alone;
    - `{"inputs": [text, ...], "outputs": [text, ...]}`: the program is run with each text as its standard input, and
      must end without an error and write the output, blanks at the ends of lines and empty lines at the end aside.

    All tests of a prompt may have 8 MiB. A program is one process, with threads, that knows no network, no file but
    Python's own, no variable, and no other process. `isolation` says how that is done.
    """

    cpu_seconds: int = 10
    """Seconds of computing time that a program may take, for each of "inputs"."""
    wall_seconds: float = 60.0
    """Seconds that a program may take with all its tests."""
    memory_mib: int = 1024
    """Address space that a program may take, MiB."""
    disk_mib: int = 16
    """Size of its folder, which is in memory, and of a file in it, MiB."""
    output_kib: int = 1024
    """What it may write to its standard output, KiB."""
    workers: int = 2
    """Programs that are run at a time."""
    allow_weak: bool = False
    """Run programs even where the machine offers no isolation, so that they can read and write what the user can."""

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
        """What keeps programs in: `namespaces`, `landlock` (then they can write no file), or `none` but limits."""
        return strongest((*ISOLATIONS, WEAK) if self.allow_weak else ISOLATIONS)

    def __call__(self, prompt: Prompt, response: str) -> float:
        """Return 1 or 0; a prompt without tests is never answered rightly."""
        return self.grade([prompt], [response])[0].reward

    def final_answer(self, response: str) -> str | None:
        """Return the program."""
        return last_block(response)

    def grade(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Run several programs at a time.

        Raises:
            ValueError: if a prompt's answer holds no tests.
            WorkerError: if programs cannot be isolated here.
        """
        programs = [last_block(response) for response in responses]
        jobs = [self._jobs(prompt, program) for prompt, program in zip(prompts, programs, strict=True)]
        answers = iter(self._pool().ask_all([job for row in jobs for job, _ in row], self.wall_seconds + SLACK))
        passed = [[_right(next(answers), wanted) for _, wanted in row] for row in jobs]
        return [Verdict(float(row != [] and all(row)), p) for row, p in zip(passed, programs, strict=True)]

    def check(self, key: str, prompts: Sequence[Prompt]) -> None:
        """Check that all prompts have tests that a program can pass, and that programs can be isolated here."""
        for prompt in prompts:
            self._check_tests(key, prompt)
        try:
            self._pool().told()
        except WorkerError as error:
            problem = f"a program could read and change your files, since no sandbox works here ({error})"
            remedy = "allow user namespaces, use Linux 6.2 or newer, or set it to true where nothing can be lost"
            raise UserError(f"{key}.allow_weak", self.allow_weak, problem, remedy) from error

    def _check_tests(self, key: str, prompt: Prompt) -> None:
        try:
            tests = _tests(prompt)
        except ValueError as error:
            raise UserError(key, prompt.id, str(error), FORMAT) from error
        if tests is None:
            return
        code = tests["code"]
        if code and tests["entry_point"] not in used(code) and not asked(code, tests["prelude"]):
            problem = "its tests use no name that a program has to define"
            raise UserError(key, prompt.id, problem, 'name the function that they are about in "entry_point"')
        size = len(json.dumps(tests))
        if size > LONGEST:
            raise UserError(key, prompt.id, f"its tests have {size} bytes, above {LONGEST}", "drop some of them")
        longest = max((len("\n".join(_lines(text)).encode()) for text in tests["outputs"]), default=0)
        if longest > self.output_kib * 1024:
            problem = f"one of its outputs has {longest} bytes, and a program may write {self.output_kib} KiB"
            raise UserError(key, prompt.id, problem, f"raise {key}.output_kib")

    def _pool(self) -> Pool:
        return pool(JAILER, (self.isolation,), self.workers)

    def _limits(self) -> dict[str, int]:
        names = ("cpu_seconds", "memory_mib", "disk_mib", "output_kib")
        return dict(zip(names, (self.cpu_seconds, self.memory_mib, self.disk_mib, self.output_kib), strict=True))

    def _jobs(self, prompt: Prompt, program: str | None) -> list[tuple[list[Any], Any]]:
        """Return what is asked of the sandbox, each with the answer that is wanted."""
        tests = _tests(prompt)
        if program is None or tests is None:
            return []
        jobs: list[tuple[list[Any], Any]] = []
        job = {"program": program, "inputs": None, "limits": self._limits(), "wall_seconds": self.wall_seconds}
        if tests["code"]:
            job["program"] = f"{tests['prelude']}\n{program}"
            jobs.append(([job, {name: tests[name] for name in ("code", "prelude", "entry_point")}], True))
        if tests["inputs"]:
            # The outputs stay here.
            jobs.append(([job | {"program": program, "inputs": tests["inputs"]}, None], tests["outputs"]))
        return jobs


@lru_cache
def strongest(isolations: tuple[str, ...]) -> str:
    """Return the first isolation that works here; all workers start with that one.

    Raises:
        WorkerError: if none does.
    """
    worker = Worker(JAILER, isolations)
    worker.close()
    return str(worker.told)


def _tests(prompt: Prompt) -> dict[str, Any] | None:
    """Return "code", "prelude", "entry_point", "inputs" and "outputs" of a prompt that has tests.

    Raises:
        ValueError: if its answer is something else.
    """
    if prompt.answer is None:
        return None
    try:
        given = json.loads(prompt.answer)
        tests, prelude, entry = given.get("tests", []), given.get("prelude", ""), given.get("entry_point")
        code = tests if isinstance(tests, str) else "\n".join(tests)
        if "test" in given:
            if not isinstance(given["test"], str) or not entry:
                raise ValueError('"test" is text, and needs "entry_point"')
            code = f"{given['test']}\ncheck({entry})"
        inputs, outputs = given.get("inputs", []), given.get("outputs", [])
        texts = [code, prelude, entry or "", *inputs, *outputs]
        if len(inputs) != len(outputs) or not all(isinstance(text, str) for text in texts) or not (code or inputs):
            raise ValueError("nothing to run, something that is no text, or more inputs than outputs")
        for source in (prelude, code):
            compile(source, "tests", "exec")
    except (ValueError, TypeError, AttributeError, SyntaxError) as error:
        raise ValueError(f"its answer holds no tests ({error})") from error
    return {"code": code, "prelude": prelude, "entry_point": entry, "inputs": inputs, "outputs": outputs}


def _right(answer: dict[str, Any] | None, wanted: Any) -> bool:
    if answer is None:
        return False
    got = answer["answer"]
    if isinstance(wanted, bool):
        return got is wanted
    return len(got) == len(wanted) and all(
        text is not None and _lines(text) == _lines(right) for text, right in zip(got, wanted, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]

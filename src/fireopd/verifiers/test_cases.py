"""Tests of a program, read from the answer of a prompt."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from fireopd.verifiers.required_names import MODULES, required_names, used_names

__all__ = ["FORMAT", "TestCases", "read_tests"]

FORMAT = (
    'give JSON: {"tests": [...]}, also with "entry_point", {"entry_point": ..., "test": ...} or '
    '{"inputs": [...], "outputs": [...]}'
)


@dataclass(frozen=True)
class TestCases:
    """Tests of a prompt."""

    __test__ = False

    code: str
    """Assertions, "" if there are none."""
    prelude: str
    """Code before both program and assertions."""
    names: tuple[str, ...]
    """Names that the assertions take from the program."""
    inputs: list[str]
    """Standard inputs."""
    outputs: list[str]
    """Expected standard output for each input."""


def read_tests(answer: str) -> TestCases:
    """Return the tests in the answer of a prompt.

    Raises:
        ValueError: if it has no valid tests.
    """
    try:
        given = json.loads(answer)
        tests, prelude, entry = given.get("tests", []), given.get("prelude", ""), given.get("entry_point") or []
        entries = [entry] if isinstance(entry, str) else list(entry)
        code = tests if isinstance(tests, str) else "\n".join(tests)
        if "test" in given:
            if not isinstance(given["test"], str) or not entries:
                raise ValueError('"test" must be text, and requires "entry_point"')
            code = f"{given['test']}\ncheck({entries[0]})"
        inputs, outputs = given.get("inputs", []), given.get("outputs", [])
        texts = [code, prelude, *entries, *inputs, *outputs]
        if len(inputs) != len(outputs) or not all(isinstance(text, str) for text in texts) or not (code or inputs):
            raise ValueError("it is empty, contains a value that is not text, or numbers of inputs and outputs differ")
        for text in (*inputs, *outputs):
            text.encode(errors="surrogateescape")
        for source in (prelude, code):
            compile(source, "tests", "exec", dont_inherit=True)
        names = _program_names(code, prelude, entries) if code else ()
    except (ValueError, TypeError, AttributeError, SyntaxError, RecursionError) as error:
        raise ValueError(f"its answer has no valid tests ({error})") from error
    return TestCases(code, prelude, names, inputs, outputs)


def _program_names(code: str, prelude: str, entries: list[Any]) -> tuple[str, ...]:
    """Return the names that tests take from the program.

    Without an entry point, that is the only name that nothing else defines. A second one may be a helper of the tests,
    which a program could define so that it passes.
    """
    used = used_names(code)
    entered = {name for entry in entries for name in used_names(entry)}
    unknown = required_names(code, prelude) - entered
    if (entered and unknown) or len(unknown) > 1:
        names = ", ".join(sorted(unknown))
        raise ValueError(
            f'its tests use {names}, which nothing defines: define helpers of the tests in "prelude", and list what '
            'the program has to define in "entry_point"'
        )
    for name in sorted(used & MODULES.keys() - entered):
        if find_spec(MODULES[name]) is None:
            raise ValueError(f"its tests use the module {MODULES[name]}, which is not installed")
    return tuple(sorted((entered & used) or unknown))

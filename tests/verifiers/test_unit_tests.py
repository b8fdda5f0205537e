"""UnitTests: correct programs and the forms of tests."""

import json
import shutil
import sys
import tempfile
import venv
from pathlib import Path

import pytest

from fireopd.errors import UserError
from fireopd.types import Prompt
from fireopd.verifiers import UnitTests, unit_tests
from fireopd.verifiers.code_blocks import last_block
from fireopd.verifiers.workers import pool as workers

LIMITS = {"cpu_seconds": 2, "wall_seconds": 20.0}


def prompt(**tests):
    return Prompt((), "t", "code", json.dumps(tests), "tasks.jsonl:1")


def grade(code, settings=(), **tests):
    return UnitTests(**LIMITS | dict(settings))(prompt(**tests), f"Here it is:\n```python\n{code}\n```\nDone.")


DOUBLE = "def double(x):\n    return 2 * x"


def test_a_program_is_right_if_it_passes_all_tests():
    tests = ["assert double(2) == 4", "assert double('a') == 'aa'"]
    assert grade(DOUBLE, tests=tests) == 1.0
    assert grade(DOUBLE, tests="\n".join(tests)) == 1.0
    assert grade(DOUBLE, tests=[*tests, "assert double(2) == 5"]) == 0.0
    assert grade("def double(x):\n    return 4", tests=tests) == 0.0
    assert grade("def other(x):\n    return 2 * x", tests=tests) == 0.0
    assert grade("def double(x:", tests=tests) == 0.0


def test_humaneval_style():
    test = "METADATA = {}\ndef check(f):\n    assert f(2) == 4\n    assert abs(f(0.5) - 1) < 1e-6\n"
    assert grade(DOUBLE, entry_point="double", test=test) == 1.0
    assert grade("def double(x):\n    return 4", entry_point="double", test=test) == 0.0


def test_a_prelude_stands_before_program_and_tests():
    tests = {"prelude": "import math\ndef helper(x):\n    return x + 1", "tests": ["assert f(1) == helper(1) == 2"]}
    assert grade("def f(x):\n    return helper(math.floor(x))", **tests) == 1.0
    assert grade("def f(x):\n    return 3\ndef helper(x):\n    return 3", **tests) == 0.0


def test_standard_input_and_output():
    code = "n = int(input())\nfor _ in range(n):\n    print(input()[::-1], end='  \\n')\nprint()"
    tests = {"inputs": ["2\nabc\nde\n", "0\n", "1\nähm"], "outputs": ["cba\ned", "\n", "mhä\n"]}
    assert grade(code, **tests) == 1.0
    assert grade(code, **tests | {"outputs": ["cba\ned", "", "mha"]}) == 0.0
    assert grade("print('cba')\nprint('ed')", **tests) == 0.0
    main = "import sys\ndef main():\n    print(sys.stdin.read().upper())\nif __name__ == '__main__':\n    main()"
    assert grade(main, inputs=["ab"], outputs=["AB"]) == 1.0
    assert grade(main + "\n    raise ValueError", inputs=["ab"], outputs=["AB"]) == 0.0
    assert grade(main + "\n    sys.exit(0)", inputs=["ab"], outputs=["AB"]) == 1.0
    assert grade(main + "\n    sys.exit(3)", inputs=["ab"], outputs=["AB"]) == 0.0


def test_both_kinds_of_tests_have_to_pass():
    code = DOUBLE + "\nif __name__ == '__main__':\n    print(double(int(input())))"
    assert grade(code, tests=["assert double(1) == 2"], inputs=["3"], outputs=["6"]) == 1.0
    assert grade(code, tests=["assert double(1) == 3"], inputs=["3"], outputs=["6"]) == 0.0
    assert grade(code, tests=["assert double(1) == 2"], inputs=["3"], outputs=["7"]) == 0.0


@pytest.mark.parametrize(
    ("code", "test"),
    [
        ("def f():\n    return {(1, 'a'): [None, {2.5}], 'b': b'x', True: 1j}",
         "assert f() == {(1, 'a'): [None, {2.5}], 'b': b'x', True: 1j}"),
        ("def f(n):\n    return 7 ** n", "assert f(20000) == 7 ** 20000"),
        ("def f():\n    return float('inf'), float('nan')", "a, b = f()\nassert a == float('inf') and b != b"),
        ("def f(x):\n    x.sort()", "x = [3, 1, 2]\nassert f(x) is None\nassert x == [1, 2, 3]"),
        ("def f(x):\n    x['a'] = 1", "x = {}\nf(x)\nassert x == {'a': 1}"),
        ("def f():\n    yield from 'abc'", "assert list(f()) == ['a', 'b', 'c']"),
        ("import itertools\ndef f():\n    return itertools.count()",
         "from itertools import islice\nassert list(islice(f(), 3)) == [0, 1, 2]"),
        ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
         "    def __len__(self): return len(self.items)",
         "s = Stack()\nassert not s\ns.push(3)\nassert s.items == [3] and len(s) == 1 and s == s and s != Stack()"),
        ("def f(x):\n    raise KeyError(x)",
         "try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    raise AssertionError"),
        ("from collections import Counter\ndef f(x):\n    return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("import numpy\ndef f():\n    return numpy.arange(3).sum(), numpy.ones(2)", "assert f() == (3, [1.0, 1.0])"),
        ("def f(x):\n    return x", "assert math.isclose(f(0.1) + 0.2, 0.3)"),
        ("import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: 'int'\ndef f():\n    return P(3)",
         "assert f().x == 3"),
        ("import threading\ndef f():\n    out = []\n    t = threading.Thread(target=out.append, args=[1])\n"
         "    t.start()\n    t.join()\n    return out", "assert f() == [1]"),
        ("import asyncio\nasync def g():\n    return 3\ndef f():\n    return asyncio.run(g())", "assert f() == 3"),
        ("from pathlib import Path\ndef f():\n    Path('x').write_text('a')\n"
         "    return Path.home().joinpath('x').read_text()",
         "assert f() == 'a'"),
        ("value = 3", "assert value == 3"),
        ("def f(x):\n    return x == 'print(1)'", "assert f('print(1)')"),
    ],
)  # fmt: skip
def test_what_right_programs_do(code, test):
    if "write_text" in code and UnitTests().isolation == "landlock":
        pytest.skip("under Landlock a program can write no file")
    assert grade(code, tests=[test]) == 1.0
    broken = test.replace("assert ", "assert not (").replace("\n", ")\n", 1) if "\n" not in test else None
    if broken:
        assert grade(code, tests=[broken + ")"]) == 0.0


@pytest.mark.parametrize(
    ("names", "test"),
    [
        ("abs = lambda x: 0", "assert abs(f(3) - 6) < 1e-6"),
        ("class math:\n    isclose = lambda *x: True", "assert math.isclose(f(3), 6)"),
        ("import math\nmath.isclose = lambda *x: True", "import math\nassert math.isclose(f(3), 6)"),
        ("def check(x):\n    pass", "def check(x):\n    assert x == 6\ncheck(f(3))"),
        ("def wanted(x):\n    return 0", "wanted = lambda x: 2 * x\nassert f(3) == wanted(3)"),
    ],
)
def test_a_program_cannot_redefine_what_the_tests_use(names, test):
    assert grade(f"{names}\ndef f(x):\n    return 0", tests=[test]) == 0.0
    assert grade(f"{names}\ndef f(x):\n    return 2 * x", tests=[test]) == 1.0


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        ({"tests": ["assert is_close(f(2), 4)"]}, "f, is_close"),
        ({"tests": ["assert pow(2, 3) == helper(8)"], "entry_point": "pow"}, "helper"),
        ({"tests": ["assert f(2) == g(2)"], "prelude": "from nowhere import *"}, "f, g"),
    ],
)
def test_a_program_cannot_provide_helpers_of_its_tests(tests, names):
    with pytest.raises(UserError, match=rf"'tasks.jsonl:1': .*its tests use {names}, which nothing defines"):
        UnitTests().check("ours", [prompt(**tests)])
    with pytest.raises(ValueError, match=f"its tests use {names}, which nothing defines"):
        grade("def f(x):\n    return 4", **tests)


def test_modules_of_the_tests_are_never_the_programs():
    tests = {"tests": ["assert np.allclose(f(2), 4)"]}
    forged = "class np:\n    allclose = lambda *given: True\n"
    rows = [
        (forged + "def f(x):\n    return 0", 0.0),
        ("import numpy as np\ndef f(x):\n    return np.float64(2 * x)", 1.0),
    ]
    assert [grade(code, **tests) for code, _ in rows] == [reward for _, reward in rows]


def test_a_module_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("fireopd.verifiers.test_cases.find_spec", lambda name: None)
    with pytest.raises(UserError, match="its tests use the module numpy, which is not installed"):
        UnitTests().check("ours", [prompt(tests=["assert np.allclose(f(2), 4)"])])


VECTOR = """
class V:
    def __init__(self, x): self.x = x
    def __add__(self, other): return V(self.x + other.x)
    def __eq__(self, other): return self.x == other.x
    def __lt__(self, other): return self.x < other.x
    def __hash__(self): return 1
    def __repr__(self): return f'V({self.x})'
    def __getitem__(self, key): return self.__dict__[key]
    def __setitem__(self, key, value): self.__dict__[key] = value
    def __enter__(self): return self
    def __exit__(self, *error): self.x = 'closed'
"""
ERRORS = """
class Empty(ValueError):
    def __init__(self, code):
        super().__init__('no item')
        self.code = code
class NoItem(Empty):
    pass
class Stack:
    def pop(self): raise NoItem(7)
"""
RIGHT = {
    "operators": (
        VECTOR,
        "assert V(1) + V(2) == V(3) != V(4)\nassert max([V(1), V(3)]) == V(3) > V(1)",
        ["V"],
    ),
    "text and hash": (VECTOR, "assert repr(V(3)) == f'{V(3)}' == 'V(3)'\nassert {V(1)} == {V(1)}", ["V"]),
    "membership and identity": (VECTOR, "a = V(1)\nb = a\nassert a is b and a in [V(1)] and isinstance(a, V)", ["V"]),
    "attributes and items": (VECTOR, "a = V(1)\na.x = 5\na['y'] = 6\nassert (a['x'], a.y) == (5, 6)", ["V"]),
    "copies": (VECTOR, "import copy\na = V(1)\nb = copy.deepcopy(a)\nb.x = 2\nassert (a.x, b.x) == (1, 2)", ["V"]),
    "a context": (VECTOR, "with V(1) as a:\n    assert a.x == 1\nassert a.x == 'closed'", ["V"]),
    "an own exception": (
        ERRORS,
        "try:\n    Stack().pop()\nexcept Empty as e:\n    assert e.code == 7 and str(e) == e.args[0] == 'no item'\n"
        "else:\n    assert False\nwith pytest.raises(ValueError, match='no item'):\n    Stack().pop()",
        ["Stack", "Empty"],
    ),
    "arguments of an exception": (
        "def f(x):\n    raise KeyError(x, 1)",
        "try:\n    f('a')\nexcept KeyError as e:\n    assert e.args == ('a', 1)",
        "f",
    ),
    "a decoding error": (
        "def f(x):\n    return x.decode()",
        "try:\n    f(b'\\xff')\nexcept UnicodeDecodeError as e:\n    assert e.start == 0\nelse:\n    assert False",
        "f",
    ),
    "results that are arguments": (
        "def f(x):\n    x[0].append(1)\n    return x",
        "row = []\nx = [row, row]\nassert f(x) is x and x[1] is row and row == [1]",
        "f",
    ),
    "coroutines": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return 2 * x",
        "async def test():\n    assert await asyncio.gather(f(1), f(2)) == [2, 4]\nasyncio.run(test())\n"
        "assert asyncio.run(f(3)) == 6",
        "f",
    ),
    "numbers and dates": (
        "from fractions import Fraction\nfrom decimal import Decimal\nfrom datetime import date\n"
        "def f(x):\n    return [x + Fraction(1, 2), Decimal('1.50'), date(2020, 1, 2), range(3)]",
        "from fractions import Fraction\nfrom decimal import Decimal\nfrom datetime import date\n"
        "assert f(Fraction(1, 2)) == [1, Decimal('1.5'), date(2020, 1, 2), range(3)]",
        "f",
    ),
    "output that is not UTF-8": ("def f(x):\n    print('\\udce9')\n    return x", "assert f(1) == 1", "f"),
    "the future": ("from __future__ import annotations\ndef f(x: Y):\n    return x", "assert f(1) == 1", "f"),
}
"""Right programs, their tests and entry points."""


def test_right_programs_with_objects_errors_and_coroutines():
    prompts = [prompt(tests=[test], entry_point=entry, prelude="import math") for _, test, entry in RIGHT.values()]
    grades = UnitTests(**LIMITS).grade(prompts, [f"```\n{code}\n```" for code, _, _ in RIGHT.values()])
    assert [name for name, result in zip(RIGHT, grades, strict=True) if result.reward != 1.0] == []


YES = """
class Yes:
    __hash__ = None
    __enter__ = lambda self: self
for name in ('eq', 'lt', 'le', 'gt', 'ge', 'contains', 'exit'):
    setattr(Yes, f'__{name}__', lambda *given: True)
for name in ('sub', 'rsub', 'add', 'mul', 'abs', 'round', 'float', 'int'):
    setattr(Yes, f'__{name}__', lambda *given: 0)
def f(x):
    return Yes()
"""
FORGED = {
    "a difference": (YES, "assert abs(f(2) - 4) < 1e-6", "f"),
    "an order": (YES, "assert 3 < f(2) < 5", "f"),
    "membership": (YES, "assert 4 in f(2)", "f"),
    "a context": (YES, "with f(1):\n    assert f(2) == 4", "f"),
    "the end of a loop": ("def f(x):\n    raise StopIteration", "assert all(map(lambda x: f(x) == 4, [2]))", "f"),
    "a failed assertion": ("E = AssertionError\ndef f(x):\n    return 0",
                           "try:\n    assert f(2) == 4\nexcept E:\n    pass", ["f", "E"]),
    "all exceptions": ("E = Exception\ndef f(x):\n    return 0",
                       "try:\n    assert f(2) == 4\nexcept E:\n    pass", ["f", "E"]),
    "a subclass": ("class E(AssertionError):\n    pass\ndef f(x):\n    return 0",
                   "try:\n    assert f(2) == 4\nexcept E:\n    pass", ["f", "E"]),
    "a number": ("from fractions import Fraction\nclass F(Fraction):\n    __eq__ = lambda *given: True\n"
                 "def f(x):\n    return F(1, 2)", "assert f(2) == 4", "f"),
    "a coroutine": ("class C:\n    __await__ = lambda self: iter([])\ndef f(x):\n    return C()",
                    "async def test():\n    assert await f(2) == 4\nasyncio.run(test())", "f"),
}  # fmt: skip
"""Wrong programs that try to judge the tests."""


@pytest.mark.filterwarnings("ignore:.*counted as incorrect")
def test_a_program_cannot_judge_its_tests():
    prompts = [prompt(tests=[test], entry_point=entry) for _, test, entry in FORGED.values()]
    grades = UnitTests(**LIMITS).grade(prompts, [f"```\n{code}\n```" for code, _, _ in FORGED.values()])
    assert [name for name, result in zip(FORGED, grades, strict=True) if result.reward] == []


@pytest.mark.parametrize(
    ("code", "test", "problem"),
    [
        ("def f(g):\n    return g(2)", "assert f(lambda x: 2 * x) == 4", "an argument of the type function"),
        (VECTOR.replace("V", "f"), "assert f(2) + 2 == 4", "the operator `add` between an object of the program"),
        ("class f:\n    __contains__ = lambda *given: True", "assert 4 in f()", "`in` on an object of the program"),
    ],
)
def test_what_the_sandbox_does_not_support_is_named(code, test, problem):
    with pytest.warns(UserWarning, match=f"^tasks.jsonl:1: counted as incorrect, since its tests need .*{problem}"):
        assert grade(code, tests=[test]) == 0.0


def test_bytes_that_are_not_utf_8_are_read_and_written():
    assert grade("print(input())", inputs=["\udce9"], outputs=["\udce9"]) == 1.0
    with pytest.raises(UserError, match="its answer has no valid tests"):
        UnitTests().check("ours", [prompt(inputs=["\ud800"], outputs=[""])])


@pytest.mark.parametrize("fence", ["```", "~~~", "```text"])
def test_the_name_of_the_language_below_the_fence_is_no_program(fence):
    end = fence[:3]
    for name in ("python", " Python ", "python3", "py"):
        assert last_block(f"{fence}\n{name}\nx = 1\n{end}") == "x = 1"
    assert last_block(f"{fence}\npython\n{end}") == ""
    for program in ("python = 1\nx = 1", "x = 1\npython", "pythonic\nx = 1"):
        assert last_block(f"{fence}\n{program}\n{end}") == program


def test_the_last_closed_block_is_the_program():
    first, last = f"```python\n{DOUBLE}\n```", "```py\ndef double(x):\n    return 0\n```"
    tests = prompt(tests=["assert double(1) == 2"])
    verifier = UnitTests(**LIMITS)
    responses = [first, last + "\n" + first, first + "\n" + last, first[:-3], DOUBLE, "", f"~~~~\n{DOUBLE}\n~~~~"]
    grades = verifier.grade([tests] * len(responses), responses)
    assert [result.reward for result in grades] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert [result.answer for result in grades][:4] == [DOUBLE, DOUBLE, "def double(x):\n    return 0", None]


def test_without_tests_nothing_is_right():
    assert UnitTests()(Prompt((), "t", "code", None, "0"), f"```\n{DOUBLE}\n```") == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "4",
        "[]",
        "no JSON",
        "{}",
        '{"tests": []}',
        '{"tests": [1]}',
        '{"test": ["assert f(1) == 2"], "entry_point": "f"}',
        '{"test": "def check(candidate): pass"}',
        '{"tests": ["assert ("]}',
        '{"inputs": ["1"], "outputs": []}',
        '{"inputs": [1], "outputs": [1]}',
    ],
)
def test_a_prompt_whose_answer_holds_no_tests_is_refused_before_the_run(answer):
    with pytest.raises(UserError, match=r"^ours: 'tasks.jsonl:7': its answer has no valid tests.*Give JSON"):
        UnitTests().check("ours", [Prompt((), "t", "code", answer, "tasks.jsonl:7")])


@pytest.mark.parametrize("code", ["def pow(a, b):\n    return 0", "", "pow = max", "def other():\n    pass"])
def test_a_wrong_program_fails_tests_of_a_function_that_is_called_like_pythons_own(code):
    tests = {"tests": ["assert pow(2, 3) == 8"]}
    assert grade(code, **tests) == 0.0
    assert grade(code, **tests, entry_point="pow") == 0.0
    assert grade("def pow(a, b):\n    return a ** b", **tests, entry_point="pow") == 1.0
    assert grade("def copy(a):\n    return a", tests=["assert copy(2) == 2"], entry_point="copy") == 1.0


@pytest.mark.parametrize(
    "tests",
    [
        {"tests": ["assert pow(2, 3) == 8"]},
        {"tests": ["import copy", "assert copy.copy(3) == 3"]},
        {"tests": ["assert f(2) == 4"], "prelude": "def f(x):\n    return 2 * x"},
        {"tests": ["def test():\n    f = max\n    assert f(2, 4) == 4", "test()"]},
    ],
)
def test_tests_of_nothing_that_a_program_defines_are_refused_before_the_run(tests):
    with pytest.raises(UserError, match=r"ours: 'tasks.jsonl:1': its tests use no name.*Name .*entry_point"):
        UnitTests().check("ours", [prompt(**tests)])


@pytest.mark.parametrize(
    "tests",
    [
        {"tests": ["assert pow(2, 3) == 8"], "entry_point": "pow"},
        {"tests": ["def check(f):\n    assert f(2) == 4", "check(f)"]},
        {"tests": ["f = staticmethod(f)"], "entry_point": "f"},
        {"tests": ["def test():\n    assert Stack().items == []", "test()"]},
        {"test": "def check(candidate):\n    assert candidate(2) == 4", "entry_point": "f"},
        {"inputs": ["1"], "outputs": ["2"]},
    ],
)
def test_tests_of_something_that_a_program_defines_are_not_refused(tests):
    UnitTests().check("ours", [prompt(**tests)])


def test_tests_that_nothing_can_pass_for_their_size_are_refused_before_the_run():
    large = prompt(inputs=["x" * 2**20] * 9, outputs=[""] * 9)
    with pytest.raises(UserError, match=r"'tasks.jsonl:1': its tests have 94\d{5} bytes, above 8388608"):
        UnitTests().check("ours", [large])
    long = prompt(inputs=[""], outputs=["x" * 3000 + " " * 3000])
    with pytest.raises(UserError, match=r"has 3000 bytes, and a program may write 2 KiB. Raise ours.output_kib"):
        UnitTests(output_kib=2).check("ours", [long])
    UnitTests(output_kib=3).check("ours", [long])


def test_what_is_not_refused_for_its_size_can_be_passed():
    text = "x" * (2**20 - 1)
    tests = {"inputs": [text] * 3, "outputs": [text] * 3}
    UnitTests().check("ours", [prompt(**tests)])
    assert grade("print(input())", **tests) == 1.0


def test_no_worker_starts_with_less_isolation_than_is_allowed(monkeypatch):
    """Also a later worker, after the machine's support has changed."""
    pool = workers.Pool(unit_tests.SUPERVISOR, ("no_such_isolation",), 1)
    with pytest.raises(workers.WorkerError, match="supports no isolation of no_such_isolation"):
        pool.greeting()
    monkeypatch.setattr(unit_tests, "strongest_isolation", lambda isolations: isolations[-1])
    assert UnitTests()._pool().settings == ("landlock",)
    assert UnitTests(allow_weak=True)._pool().settings == ("none",)


def test_without_isolation_programs_run_only_if_the_user_says_so(monkeypatch):
    monkeypatch.setattr(unit_tests, "ISOLATIONS", ("nothing",))
    good = prompt(tests=["assert double(1) == 2"])
    with pytest.raises(UserError, match=r"data.prompts.verifier.allow_weak: False: .*supports no isolation of nothing"):
        UnitTests().check("data.prompts.verifier", [good])
    with pytest.raises(workers.WorkerError):
        UnitTests()(good, f"```\n{DOUBLE}\n```")
    assert UnitTests(allow_weak=True).isolation == "none"
    assert UnitTests(allow_weak=True)(good, f"```\n{DOUBLE}\n```") == 1.0


@pytest.mark.parametrize("name", ["cpu_seconds", "memory_mib", "disk_mib", "output_kib", "workers"])
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        UnitTests(**{name: 0})


def test_a_virtual_environment_in_the_temporary_folder_costs_no_isolation(monkeypatch):
    """The folder of a program is linked as /tmp and must not hide Python."""
    isolation = UnitTests().isolation
    environment = Path(tempfile.mkdtemp(dir="/tmp", prefix="environment-"))
    try:
        venv.create(environment)
        monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))
        worker = workers.Worker(unit_tests.SUPERVISOR, unit_tests.ISOLATIONS)
        worker.close()
    finally:
        shutil.rmtree(environment)
    assert worker.greeting == isolation

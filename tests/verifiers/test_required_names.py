"""Names that tests use, and names that a program has to define."""

import pytest

from fireopd.verifiers.required_names import required_names, used_names


@pytest.mark.parametrize(
    ("code", "names", "of_the_program"),
    [
        ("assert f(1) == abs(2)", {"f", "abs"}, {"f"}),
        ("import math\nassert math.isclose(f(1), g.h)", {"math", "f", "g"}, {"f", "g"}),
        ("assert math.isclose(f(1), 2)", {"math", "f"}, {"f"}),
        ("from x import *\nfrom y import z as f\nf(1)", {"f"}, set()),
        ("def check(f, g=h):\n    return f(g, i)\ncheck(f)", {"check", "f", "h", "i"}, {"f", "h", "i"}),
        ("class T:\n    y = z\n    def t(self):\n        return y, T", {"z", "y", "T"}, {"z", "y"}),
        ("def t():\n    global a\n    a = 1\nt()\na, b", {"t", "a", "b"}, {"b"}),
        ("try:\n    f()\nexcept KeyError as e:\n    e", {"f", "KeyError", "e"}, {"f"}),
        ("[x + y for x in z if (w := x)]", {"y", "z"}, {"y", "z"}),
        ("f = f(1)", {"f"}, set()),
        ("with f() as a, open(b) as c: pass\nfor i in a: i", {"f", "open", "b", "a", "i"}, {"f", "b"}),
        ("from math import *\nassert f(1) == floor(2.5)", {"f", "floor"}, {"f"}),
        ("from x import *\nassert f(1) == floor(2.5)", {"f", "floor"}, {"f", "floor"}),
        ("assert np.allclose(f(1), pd.NA)", {"f", "np", "pd"}, {"f"}),
        ("", set(), set()),
    ],
)
def test_which_names_of_tests_are_the_programs(code, names, of_the_program):
    assert used_names(code) == names
    assert required_names(code, "") == of_the_program
    prelude = "import f\ndef g(h): pass\n"
    assert required_names(code, prelude) == of_the_program - {"f", "g"}

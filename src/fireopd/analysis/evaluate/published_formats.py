r"""Prompts and reference answers of published benchmarks, made from the rows of their datasets.

Mathematics: the problem, then "Please reason step by step, and put your final answer within \boxed{}." on a line, as
in the evaluations of Qwen2.5-Math (arXiv 2409.12122). HumanEval: the instruction of EvalPlus for chat models, without
its prefilled start of the answer. MBPP: the prompt of arXiv 2108.07732 without examples. LiveCodeBench: the prompt of
its code generation scenario (lcb_runner/prompts/code_generation.py).
"""

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from fireopd.prompts import PromptText
from fireopd.verifiers.required_names import used_names

__all__ = ["Row", "human_eval", "live_code_bench", "math_problem", "mbpp"]

Row = Mapping[str, Any]
"""Row of a dataset: values by column."""
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
SCRIPT = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
LCB_SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
LCB_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
LCB_STDIN = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)
LCB_MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "typing"),
)
"""Modules whose names a program finds defined, as in lcb_runner/evaluation/testing_util.py."""
LCB_PRELUDE = "\n".join(f"from {module} import *\nimport {module}" for module in LCB_MODULES)


def math_problem(question: str, answer: str, own: str = "") -> Callable[[str, int, Row], PromptText]:
    """Return a function that makes the prompt of a mathematical problem.

    Args:
        question: column of the problem.
        answer: column of the answer, a value or a list of values.
        own: column of the id; empty for the number of the row, from 1.
    """

    def prompt(name: str, number: int, row: Row) -> PromptText:
        """Return the prompt of a row; several values of an answer are joined by commas."""
        values = row[answer] if isinstance(row[answer], list) else [row[answer]]
        text = ", ".join(str(int(v) if isinstance(v, float) and v.is_integer() else v) for v in values)
        return _text(name, row[own] if own else number, f"{row[question]}\n{BOXED}", text)

    return prompt


def human_eval(name: str, number: int, row: Row) -> PromptText:
    """Return the prompt of a HumanEval problem; imports and helper functions before its function are the prelude."""
    entry = row["entry_point"]
    prelude = row["prompt"].rpartition(f"def {entry}(")[0]
    answer = {"entry_point": entry, "test": row["test"], "prelude": prelude}
    return _text(name, row["task_id"], f"{SCRIPT}\n```\n{row['prompt'].strip()}\n```\n", json.dumps(answer))


def mbpp(name: str, number: int, row: Row) -> PromptText:
    """Return the prompt of an MBPP problem; the program defines what both the solution and the tests name."""
    tests = "\n".join(row["test_list"])
    defined = {node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    answer = {"tests": tests, "entry_point": sorted(defined & used_names(tests)), "prelude": row["test_setup_code"]}
    text = (
        f"You are an expert Python programmer, and here is your task: {row['text']} "
        f"Your code should pass these tests:\n\n{tests}\n\nWrite the code in a markdown code block."
    )
    return _text(name, f"Mbpp/{row['task_id']}", text, json.dumps(answer))


def live_code_bench(name: str, number: int, row: Row) -> PromptText:
    """Return the prompt of a LiveCodeBench problem, with its public and private tests."""
    starter = row["starter_code"]
    form, code = (LCB_STARTER, starter) if starter else (LCB_STDIN, "# YOUR CODE HERE")
    text = (
        f"### Question:\n{row['question_content']}\n\n### Format: {form}\n```python\n{code}\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )
    tests = [*json.loads(row["public_test_cases"]), *_private_tests(row["private_test_cases"])]
    content = [{"role": "system", "content": LCB_SYSTEM}, {"role": "user", "content": text}]
    return PromptText(content, "none", name, json.dumps(_lcb_answer(row, tests)), f"{name}:{row['question_id']}")


def _text(name: str, own: object, text: str, answer: str) -> PromptText:
    return PromptText([{"role": "user", "content": text}], "none", name, answer, f"{name}:{own}")


def _lcb_answer(row: Row, tests: list[dict[str, str]]) -> dict[str, Any]:
    """Return tests on standard input and output, or calls of the method that the problem asks for."""
    if tests[0]["testtype"] == "stdin":
        return {"inputs": [test["input"] for test in tests], "outputs": [test["output"] for test in tests]}
    method = json.loads(row["metadata"])["func_name"]
    return {
        "entry_point": "Solution",
        "tests": [_lcb_call(method, test) for test in tests],
        "prelude": LCB_PRELUDE,
    }


def _lcb_call(method: str, test: dict[str, str]) -> str:
    arguments = ", ".join(repr(json.loads(line)) for line in test["input"].split("\n"))
    return f"assert Solution().{method}({arguments}) == {json.loads(test['output'])!r}"


def _private_tests(packed: str) -> list[dict[str, str]]:
    """Return private tests: JSON, or base64 of compressed, pickled JSON text."""
    try:
        found = json.loads(packed)
    except ValueError:
        found = json.loads(_TextUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(packed)))).load())
    return list(found)


class _TextUnpickler(pickle.Unpickler):
    """Unpickler of text and numbers: the dataset cannot make it import anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in a text")

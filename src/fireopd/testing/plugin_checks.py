"""Checks that teachers, engines, prompt sources and verifiers have in common, and the report of their violations."""

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from types import ModuleType
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer
from fireopd.prompts import PromptText
from fireopd.prompts.tokenization import tokenize
from fireopd.testing.settings_checks import pickling_problem, yaml_problem
from fireopd.types import Prompt
from fireopd.types.strategy import ContractError

__all__ = ["early_weights", "example_prompts", "paragraph", "settings_violations", "violations_of"]

Case = TypeVar("Case")
DEPTH, ITEMS, CONSTANT = 4, 1000, 1000
"""Levels, and items of each, in which loaded weights are looked for; elements of a tensor that is no weight."""
QUESTIONS = ("1+2", "7;+5;*2", "12;*2", "9")
"""Prompts whose characters any tokenizer knows."""


def settings_violations(plugin: object, base: type, *, frozen: bool) -> list[str]:
    """Return one paragraph per violation by the class and the settings of a plug-in.

    Args:
        plugin: the plug-in.
        base: base class of its kind.
        frozen: whether its class must be a frozen dataclass.

    Raises:
        TypeError: if the plug-in is not an instance of the base class.
    """
    kind: Any = type(plugin)
    if not isinstance(plugin, base):
        remedy = f": pass an instance, {plugin.__name__}(...)" if inspect.isclass(plugin) else ""
        raise TypeError(f"{plugin!r} is not a {base.__name__}{remedy}")
    parameters: Any = vars(kind).get("__dataclass_params__")
    line = "@dataclass(frozen=True)" if frozen else "@dataclass"
    if parameters is None or (frozen and not parameters.frozen):
        return [f"{kind.__name__} is not a {line[1:]}. Write {line} above class {kind.__name__}."]
    problems = (pickling_problem(plugin), yaml_problem(plugin, base))
    return [f"{kind.__name__} {problem}" for problem in problems if problem]


def early_weights(plugin: object) -> list[str]:
    """Return one paragraph if a plug-in with a `setup` holds weights before it is called."""
    weights = _weights(plugin, DEPTH)
    problem = (
        f"{type(plugin).__name__} holds a {weights} before setup. Its constructor stores settings only: `fireopd "
        f"check` creates it, too. Load weights in setup, and pass an instance that is not set up."
    )
    return [problem] if weights else []


def _weights(value: object, depth: int) -> str:
    """Return the class of a module with tensors, or of a tensor that is no small constant; empty if there is none."""
    if isinstance(value, nn.Module):
        return type(value).__name__ if any(True for _ in chain(value.parameters(), value.buffers())) else ""
    if isinstance(value, Tensor):
        return type(value).__name__ if value.numel() > CONSTANT else ""
    if depth == 0 or isinstance(value, type | ModuleType):
        return ""
    if type(value) in (list, tuple, set, deque):
        parts = islice(cast(Iterable[object], value), ITEMS)
    elif type(value) is dict:
        parts = islice(value.values(), ITEMS)
    else:
        parts = islice(value.__dict__.values(), ITEMS) if type(value).__dictoffset__ else islice((), 0)
    return next((found for part in list(parts) if (found := _weights(part, depth - 1))), "")


def violations_of(name: str, case: Case, checks: Sequence[Callable[[Case], str]], decisive: int = 1) -> list[str]:
    """Return one paragraph per failed check; a check returns a paragraph, empty if it passes.

    Args:
        name: class of the plug-in, the start of each paragraph.
        case: argument of each check.
        checks: in their order.
        decisive: number of checks that decide whether those after them can run.
    """
    found: list[str] = []
    for number, check in enumerate(checks, 1):
        try:
            problem = check(case)
        except ContractError as error:
            problem = paragraph(error)
        except UserError as error:
            problem = f"raises a UserError in a check that it must pass: {error}"
        except Exception as error:  # a plug-in can raise anything
            problem = f"raises {type(error).__name__}{_place(error)}: {error}."
        if problem:
            found.append(f"{name} {problem}")
        if found and number <= decisive:
            break
    return list(dict.fromkeys(found))


def paragraph(error: ContractError) -> str:
    """Return problem and remedy of a violation of the contract."""
    remedy = error.remedy.partition("; fireopd.testing")[0]
    return f"{error.problem}. {remedy[0].upper()}{remedy[1:]}."


def _place(error: Exception) -> str:
    """Return file and line that raised an error, in brackets."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    return f" ({frames[-1].filename.rpartition('/')[2]}, line {frames[-1].lineno})" if frames else ""


def example_prompts(student: str) -> list[Prompt]:
    """Return prompts of different lengths for a student: chat messages if its tokenizer has a chat template."""
    tokenizer = load_tokenizer(student, "student")
    plain = tokenizer.chat_template is None
    texts = [
        PromptText(text if plain else [{"role": "user", "content": text}], "kit", "kit", "9", f"kit:{number}")
        for number, text in enumerate(QUESTIONS)
    ]
    return tokenize(texts, tokenizer, {}, "data.prompts")

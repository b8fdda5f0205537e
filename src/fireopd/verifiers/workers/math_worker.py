r"""Worker of `MathVerify`: extracts and parses the answer of a response and compares it with the reference.

The timeout of math-verify is an alarm that Python handles, and is disabled: `serve` enforces the time limit.
"""

import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from fireopd.verifiers.workers.worker_loop import serve

__all__ = ["boxed", "clean", "closing", "equal", "grade", "parsed", "parsed_answer", "work"]

MEMORY = 2**31
"""Limit of the address space of a worker, bytes."""
LONGEST_ANSWER = 2000
"""Maximum length of an answer that is parsed, characters; longer ones are compared as text."""
TAIL = 4000
"""Number of characters at the end of a response that are searched for an answer that is not boxed."""
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BETWEEN = re.compile(r"(?:[\s$,;.]|\\[()\[\],;! ]|\\q?quad|\\text\{\s*(?:and|or)\s*\}|and|or)*")
"""Text between two boxes that form one answer."""


def work(channel: socket.socket, settings: Sequence[str]) -> None:
    """Grade pairs of reference and response until the channel is closed."""
    [timeout] = settings
    serve(channel, grade, seconds=float(timeout), memory=MEMORY)


def grade(reference: str | None, response: str) -> tuple[float, str | None]:
    """Return the reward, 1 or 0, and the final answer in the form that is counted in a majority vote."""
    answer = boxed(response)
    text = "" if answer is None else clean(answer)
    expressions = parsed(response[-TAIL:]) if answer is None else parsed_answer(text)
    vote = str(expressions[0]) if expressions else text or None
    if reference is None:
        return 0.0, vote
    gold = boxed(reference)
    expected = clean(reference if gold is None else gold)
    same = bool(text) and text == expected
    return float(same or equal(parsed_answer(expected), expressions)), vote


def boxed(text: str) -> str | None:
    r"""Return the content of the last \boxed{...}, or None; adjacent boxes are joined with commas."""
    parts: list[str] = []
    opened = list(BOX.finditer(text))[-20:]
    first = len(text)
    for match in reversed(opened):
        end = closing(text, match.end())
        if end is None or (parts and not BETWEEN.fullmatch(text, end + 1, first)):
            if parts:
                break
            continue
        if end < first:
            parts.append(text[match.end() : end])
            first = match.start()
    return ", ".join(reversed(parts)) if parts else None


def closing(text: str, start: int) -> int | None:
    """Return the position of the brace that closes the one before `start`, or None."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def clean(answer: str) -> str:
    """Return an answer without dollar signs, redundant whitespace and full stops at the end."""
    return " ".join(answer.replace("\\$", "").replace("$", "").split()).rstrip(".").strip()


@lru_cache(maxsize=4096)
def parsed_answer(answer: str) -> list[Any]:
    """Return the parsed expressions of an answer."""
    return parsed(f"\\boxed{{{answer}}}") if answer and len(answer) <= LONGEST_ANSWER else []


def parsed(text: str) -> list[Any]:
    """Return the parsed forms of the last expression of a text."""
    return parse(text, parsing_timeout=None)


def equal(reference: list[Any], answer: list[Any]) -> bool:
    """Return True if an answer equals the reference mathematically."""
    return verify(reference, answer, timeout_seconds=None)

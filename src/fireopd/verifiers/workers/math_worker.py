r"""What a worker of `MathVerify` does: find the answer of a response, read it, compare it with the reference.

math-verify's own timeout is an alarm that Python handles, and is switched off: `serve` keeps the time.
"""

import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from fireopd.verifiers.workers.service import serve

MEMORY = 2**31
"""Bytes of address space that a worker may take."""
LONGEST_ANSWER = 2000
"""Characters of an answer that is read as mathematics; a longer one is compared as text."""
TAIL = 4000
"""Characters at the end of a response in which an answer that is not boxed is looked for."""
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BETWEEN = re.compile(r"(?:[\s$,;.]|\\[()\[\],;! ]|\\q?quad|\\text\{\s*(?:and|or)\s*\}|and|or)*")
"""What may stand between two boxes that are one answer."""


def work(channel: socket.socket, settings: Sequence[str]) -> None:
    """Answer pairs of reference and response until the channel ends."""
    [timeout] = settings
    serve(channel, judge, seconds=float(timeout), memory=MEMORY)


def judge(reference: str | None, response: str) -> tuple[float, str | None]:
    """Return 1 or 0, and the answer of the response as it counts in a majority vote."""
    answer = boxed(response)
    text = "" if answer is None else clean(answer)
    read = parsed(response[-TAIL:]) if answer is None else parsed_answer(text)
    vote = str(read[0]) if read else text or None
    if reference is None:
        return 0.0, vote
    gold = boxed(reference)
    wanted = clean(reference if gold is None else gold)
    same = bool(text) and text == wanted
    return float(same or equal(parsed_answer(wanted), read)), vote


def boxed(text: str) -> str | None:
    r"""Return what the last \boxed{...} holds; boxes that follow one another directly are one answer with commas."""
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
    """Return where the brace that was opened before `start` is closed; None if it is not."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def clean(answer: str) -> str:
    r"""Return an answer without what is no part of it: dollar signs, of LaTeX or of money, and a full stop."""
    return " ".join(answer.replace("\\$", "").replace("$", "").split()).rstrip(".").strip()


@lru_cache(maxsize=4096)
def parsed_answer(answer: str) -> list[Any]:
    """Return the readings of an answer that stands alone."""
    return parsed(f"\\boxed{{{answer}}}") if answer and len(answer) <= LONGEST_ANSWER else []


def parsed(text: str) -> list[Any]:
    """Return the readings of the last expression of a text."""
    return parse(text, parsing_timeout=None)


def equal(reference: list[Any], answer: list[Any]) -> bool:
    """Return whether an answer equals the reference."""
    return verify(reference, answer, timeout_seconds=None)

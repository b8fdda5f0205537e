"""Fingerprint of prompts: tells whether a resumed run has the prompts of its checkpoint."""

import hashlib
import json
from collections.abc import Iterable

from fireopd.types import Prompt

__all__ = ["prompts_fingerprint"]


def prompts_fingerprint(prompts: Iterable[Prompt]) -> str:
    """Return a digest of all that a run reads of its prompts, in their order; not of their ids, which name files."""
    state = hashlib.sha256()
    for prompt in prompts:
        read = [prompt.tokens, prompt.teacher, prompt.task, prompt.answer, prompt.solution, dict(prompt.details)]
        state.update(json.dumps(read, sort_keys=True, default=_plain).encode())
    return state.hexdigest()


def _plain(value: object) -> object:
    """Return a value that JSON has no form for as one that is equal in all processes."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    kind = type(value)
    has_text = kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__
    return str(value) if has_text else kind.__qualname__  # the text of other objects is their address

"""Contract of prompt sources: checks of their prompts and of the order of an epoch."""

from collections.abc import Mapping, Sequence

from fireopd.prompts.base import PromptSource, PromptText
from fireopd.types.strategy import ContractError

__all__ = ["checked_order", "checked_texts"]


def checked_texts(key: str, source: PromptSource, method: str, texts: object) -> list[PromptText]:
    """Return the prompts of a source.

    Args:
        key: setting that holds the source.
        source: the source.
        method: method that returned the prompts, `training` or `validation`.
        texts: its result.

    Raises:
        ContractError: unless they are a list of `PromptText` with content, teacher, task and id.
    """
    if not isinstance(texts, list | tuple):
        problem = f"returned a {type(texts).__name__} from {method}"
        raise _error(key, source, problem, "return a list of PromptText")
    for place, text in enumerate(texts):
        problem, remedy = _problem(text)
        if problem:
            own = text.id if isinstance(text, PromptText) else ""
            raise _error(key, source, f"returned {problem} from {method} for prompt {own or place}", remedy)
    return list(texts)


def _problem(text: object) -> tuple[str, str]:
    """Return problem and remedy of a prompt; the problem is empty if it has none."""
    if not isinstance(text, PromptText):
        return f"a {type(text).__name__}", "return a PromptText for each prompt"
    for name in ("teacher", "task", "id"):
        value = getattr(text, name)
        if not (isinstance(value, str) and value):
            return f"{name}={value!r}", f"set {name} to a text that is not empty"
    if not (text.answer is None or isinstance(text.answer, str)):
        return f"answer={text.answer!r}", "give the answer as text, or None"
    if not isinstance(text.details, Mapping):
        return f"details of the type {type(text.details).__name__}", "give the details as a dict"
    if isinstance(text.content, str):
        return ("", "") if text.content else ("an empty text", "leave the prompt out, or give it a text")
    messages = text.content if isinstance(text.content, list | tuple) else []
    if not messages or not all(_is_message(message) for message in messages):
        return f"the content {_shortened(text.content)}", 'return text, or chat messages {"role": ..., "content": ...}'
    if not any(message["content"].strip() for message in messages):
        return "chat messages without text", "leave the prompt out, or give it a text"
    return "", ""


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def checked_order(
    key: str, source: PromptSource, order: object, prompts: int, expected: int | None = None
) -> list[int]:
    """Return the order of an epoch.

    Args:
        key: setting that holds the source.
        source: the source.
        order: its result.
        prompts: number of training prompts.
        expected: number of indices in every epoch; None for any.

    Raises:
        ContractError: unless the order consists of indices of training prompts, equally many in every epoch.
    """
    if not isinstance(order, Sequence):
        raise _error(key, source, f"returned a {type(order).__name__} from order", "return a list of indices")
    wrong = [index for index in order if not (isinstance(index, int) and 0 <= index < prompts)]
    if wrong:
        problem = f"returned the index {wrong[0]!r} from order, for {prompts} training prompts"
        raise _error(key, source, problem, f"return integers from 0 to {prompts - 1}")
    if expected is not None and len(order) != expected:
        problem = f"returned {len(order)} indices from order, and {expected} for the first epoch"
        raise _error(key, source, problem, "return equally many indices for every epoch")
    return list(order)


def _error(key: str, source: PromptSource, problem: str, remedy: str) -> ContractError:
    return ContractError.of(key, source, "check_prompts", problem, remedy)

"""Fenced code blocks of responses."""

__all__ = ["last_block"]

LANGUAGES = ("python", "python3", "py")
"""Names of the language of a program, after the opening fence or in the place of the first line."""


def last_block(response: str) -> str | None:
    """Return the content of the last closed fenced code block, or None.

    A first line that is only the name of the language is left out: small models write it below the fence.
    """
    found, fence = None, ""
    block: list[str] = []
    for line in response.splitlines():
        mark = line.strip()
        if not fence and mark.startswith(("```", "~~~")):
            opening = mark[: len(mark) - len(mark.lstrip(mark[0]))]
            if opening[0] != "`" or "`" not in mark.removeprefix(opening):  # otherwise inline code
                fence, block = opening, []
        elif fence and mark.startswith(fence) and not mark.strip(fence[0]):
            named = bool(block) and block[0].strip().lower() in LANGUAGES
            found, fence = "\n".join(block[named:]), ""
        elif fence:
            block.append(line)
    return found

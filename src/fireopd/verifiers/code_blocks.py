"""Fenced code blocks of responses."""

__all__ = ["last_block"]


def last_block(response: str) -> str | None:
    """Return the content of the last closed fenced code block, or None."""
    found, fence = None, ""
    block: list[str] = []
    for line in response.splitlines():
        mark = line.strip()
        if not fence and mark.startswith(("```", "~~~")):
            opening = mark[: len(mark) - len(mark.lstrip(mark[0]))]
            if opening[0] != "`" or "`" not in mark.removeprefix(opening):  # otherwise inline code
                fence, block = opening, []
        elif fence and mark.startswith(fence) and not mark.strip(fence[0]):
            found, fence = "\n".join(block), ""
        elif fence:
            block.append(line)
    return found

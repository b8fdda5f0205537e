"""Fenced blocks of code in a response."""


def last_block(response: str) -> str | None:
    """Return the last fenced block of code that is closed; None if there is none."""
    found, fence = None, ""
    block: list[str] = []
    for line in response.splitlines():
        mark = line.strip()
        if not fence and mark.startswith(("```", "~~~")):
            opening = mark[: len(mark) - len(mark.lstrip(mark[0]))]
            if opening[0] != "`" or "`" not in mark.removeprefix(opening):  # else it is code within the line
                fence, block = opening, []
        elif fence and mark.startswith(fence) and not mark.strip(fence[0]):
            found, fence = "\n".join(block), ""
        elif fence:
            block.append(line)
    return found

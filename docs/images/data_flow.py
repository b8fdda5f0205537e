"""Drawing of the data flow of a training step: `python docs/images/data_flow.py` writes data_flow.svg next to itself.

Boxes have their own background and lines are mid-grey, so that the drawing is readable on light and on dark pages.
"""

from pathlib import Path

WIDTH, HEIGHT = 196, 74
COLUMNS, ROWS = (10, 244, 478, 712), (34, 190)
STAGES = [  # title, room, result, column, row, colour
    ("prompts", "prompts: PromptSource", "Prompt", 0, 0, "#3b6ea5"),
    ("rollouts", "plans, engines", "RolloutBatch [B, L]", 1, 0, "#3b6ea5"),
    ("grades, if read", "verifiers: Verifier", "rewards [B]", 2, 0, "#6a6f7a"),
    ("scores", "teachers, models", "signals [B, L]", 3, 0, "#8a5a9e"),
    ("all-gather", "distributed: gather_batch", "ScoredBatch [N, L]", 3, 1, "#8a5a9e"),
    ("targets", "method: Method", "Targets [N, L]", 2, 1, "#2f7d5b"),
    ("loss", "algorithm: fire_loss", "by micro-batch", 1, 1, "#2f7d5b"),
    ("step", "training: FiReOPDModule", "policy version + 1", 0, 1, "#b0632f"),
]
STYLE = "font-family: system-ui, -apple-system, 'Segoe UI', sans-serif; text-anchor: middle"


def text(x: float, y: float, words: str, size: int, fill: str, weight: str = "normal") -> str:
    """Return a line of text, centred."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" font-weight="{weight}">{words}</text>'


def arrow(*points: tuple[float, float]) -> str:
    """Return a line with an arrowhead through some points."""
    path = " L".join(f"{x} {y}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="#7d8694" stroke-width="2" marker-end="url(#head)"/>'


def draw() -> str:
    """Return the drawing."""
    parts = []
    for title, room, result, column, row, colour in STAGES:
        x, y = COLUMNS[column], ROWS[row]
        middle = x + WIDTH / 2
        parts += [
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{colour}"/>',
            text(middle, y + 24, title, 16, "#ffffff", "bold"),
            text(middle, y + 43, room, 12, "#ffffff"),
            text(middle, y + 61, result, 12, "#ffffff"),
        ]
    upper, lower = (row + HEIGHT / 2 for row in ROWS)
    for column in range(3):
        right, left = COLUMNS[column] + WIDTH, COLUMNS[column + 1]
        parts += [arrow((right + 3, upper), (left - 5, upper)), arrow((left - 3, lower), (right + 5, lower))]
    last = COLUMNS[3] + WIDTH / 2
    parts.append(arrow((last, ROWS[0] + HEIGHT + 3), (last, ROWS[1] - 5)))
    first, engine, between = COLUMNS[0] + WIDTH / 2, COLUMNS[1] + WIDTH / 2, (ROWS[0] + HEIGHT + ROWS[1]) / 2
    parts.append(arrow((first, ROWS[1] - 3), (first, between), (engine, between), (engine, ROWS[0] + HEIGHT + 5)))
    parts.append(text((first + engine) / 2 + 30, between + 18, "weight sync and probe", 12, "#7d8694"))
    parts.append(text(COLUMNS[2] + 70, between + 5, "local rows: B per rank", 12, "#7d8694"))
    parts.append(text(COLUMNS[2] + 70, between + 23, "global batch: N = all ranks", 12, "#7d8694"))
    head = '<marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    defs = f'<defs>{head}<path d="M0 0 L8 4 L0 8 z" fill="#7d8694"/></marker></defs>'
    title = "<title>Data flow of one training step</title>"
    body = "\n".join([title, defs, *parts])
    size = f'viewBox="0 0 918 {ROWS[1] + HEIGHT + 24}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" style="{STYLE}">\n{body}\n</svg>\n'


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw())

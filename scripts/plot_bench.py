"""Draw the results of scripts/bench.py, and print them as Markdown: `python scripts/plot_bench.py bench.json`.

Writes `performance.png` into the folder of `--out`; asks for matplotlib (extra `compare`).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import performance
from benchmarks.tables import markdown_table


def main() -> None:
    """Draw and print; a file that cannot be read is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="files that scripts/bench.py wrote, drawn as one")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the figure (docs/images)")
    options = parser.parse_args()
    try:
        results = together([json.loads(path.read_text()) for path in options.results])
        performance(results).write_png(options.out)
    except (OSError, ValueError, KeyError) as error:
        parser.exit(2, f"plot_bench: {error!r}; give files that scripts/bench.py wrote\n")
    print(markdown_table(results))


def together(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the results of several runs as one; what two of them hold is taken from the last, as is the machine."""
    found = dict(results[-1])
    for section in ("ratios", "left_out", "own_run", "scaling"):
        found[section] = {name: value for part in results for name, value in part[section].items()}
    return found


if __name__ == "__main__":
    main()

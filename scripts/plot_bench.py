"""Plot the results of scripts/bench.py and print them as Markdown: `python scripts/plot_bench.py bench.json`.

Writes `performance.png` into the folder `--out`. Requires matplotlib (extra `compare`).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.performance_figure import performance
from benchmarks.tables import markdown_table


def main() -> None:
    """Plot and print; exit with code 2 if a file cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="output files of scripts/bench.py, plotted together")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="output folder (default: docs/images)")
    options = parser.parse_args()
    try:
        results = merge([json.loads(path.read_text()) for path in options.results])
        performance(results).write_png(options.out)
    except (OSError, ValueError, KeyError) as error:
        parser.exit(2, f"plot_bench: {error!r}; give output files of scripts/bench.py\n")
    print(markdown_table(results))


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge the results of several runs; later results replace earlier ones, and the machine is that of the last."""
    found = dict(results[-1])
    for section in ("ratios", "left_out", "own_run", "scaling"):
        found[section] = {name: value for part in results for name, value in part[section].items()}
    return found


if __name__ == "__main__":
    main()

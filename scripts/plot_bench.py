"""Draw the results of scripts/bench.py, and print them as Markdown: `python scripts/plot_bench.py bench.json`.

Writes `performance.png` into the folder of `--out`; asks for matplotlib (extra `compare`).
"""

import argparse
import json
from pathlib import Path

from benchmarks.figures import performance
from benchmarks.tables import markdown_table


def main() -> None:
    """Draw and print; a file that cannot be read is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="file that scripts/bench.py wrote")
    parser.add_argument("--out", type=Path, default=Path(".github"), help="folder of the figure (default: .github)")
    options = parser.parse_args()
    try:
        results = json.loads(options.results.read_text())
        performance(results).write_png(options.out)
    except (OSError, ValueError, KeyError) as error:
        parser.exit(2, f"plot_bench: {options.results}: {error!r}; give a file that scripts/bench.py wrote\n")
    print(markdown_table(results))


if __name__ == "__main__":
    main()

"""`fireopd fit --config FILE`: train a student.

The settings are those of the module (`model`), the data module (`data`) and the trainer.
"""

import signal
import sys
from collections.abc import Sequence

from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.cli.training_cli import build

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse the settings and train."""
    try:
        build(arguments, train=True)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)

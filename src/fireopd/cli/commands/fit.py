"""`fireopd fit --config FILE`: train a student.

The settings are those of the module (`model`), the data module (`data`) and the trainer.
"""

import signal
import sys
from collections.abc import Sequence

from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.cli.training_cli import TrainingStoppedError, build

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse the settings and train.

    Raises:
        KeyboardInterrupt: on Ctrl-C, with a message unless the trainer has reported what was saved.
    """
    try:
        build(arguments, train=True)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("stopped before training; start again with the same command") from stop
    except TrainingStoppedError:
        sys.exit(128 + signal.SIGINT)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)

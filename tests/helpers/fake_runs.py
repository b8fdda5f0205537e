"""Output of runs without running them."""

import sys
from dataclasses import dataclass
from pathlib import Path

from fireopd.analysis.compare.planned_run import PlannedRun
from fireopd.analysis.compare.run_results import Run
from fireopd.training.csv_logger import SafeCSVLogger


def write_curves(folder, curves):
    logger = SafeCSVLogger(folder)
    for tag, curve in curves.items():
        for step, value in curve.items():
            logger.log_metrics({tag: value}, step)


def curves_of(accuracy, finished=0.5, **more):
    """Return curves of two tasks: `math` as given, `code` always 0.5."""
    end = max(accuracy)
    found = {"val/math/avg_at_k": accuracy, "val/code/avg_at_k": dict.fromkeys(accuracy, 0.5)}
    for task in ("math", "code"):
        found |= {f"val/{task}/finished": {0: 1.0, end: finished}, f"val/{task}/length": {end: 20.0}}
    return found | {"val/avg_at_k": accuracy, "rollout/length": {1: 10.0, 2: 30.0}} | more


def run_of(method, seed, accuracy, **more):
    return Run(method, seed, Path("x"), 7.0, curves_of(accuracy, **more))


@dataclass(frozen=True)
class Stub(PlannedRun):
    """Run that executes a line of Python in its folder."""

    code: str = ""

    def command(self):
        return [sys.executable, "-S", "-c", f"import os, time; os.chdir({str(self.folder)!r}); {self.code}"]


FINISH = "os.makedirs('version_0', exist_ok=True); open('version_0/summary.json', 'w').write('{}')"


def stub(tmp_path, method, seed=1, code=FINISH):
    return Stub(method, seed, tmp_path / "runs" / method / f"seed_{seed}", (), {"model.lr": 1}, code=code)

"""Launchers: arguments and environment that SLURM's and torchrun's stand-ins receive."""

import json
import os
import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT

STAND_IN = f"""#!{sys.executable}
import json, os, sys
name = os.path.basename(sys.argv[0])
with open(os.environ["CALLS"], "a") as file:
    chosen = {{key: os.environ.get(key) for key in ("SRUN_CPUS_PER_TASK", "OMP_NUM_THREADS")}}
    file.write(json.dumps([name, sys.argv[1:], chosen]) + "\\n")
sys.exit(int(os.environ.get("CODE", "0")) if name in ("srun", "torchrun") else 0)
"""
SLURM = {"SLURM_JOB_NAME": "fireopd", "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2"}
SLURM |= {"SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "6"}


def launch(folder, script, *arguments, **environment):
    """Run a launcher in a folder; return its exit code and the calls of the stand-ins."""
    programs, calls = folder / "programs", folder / "calls"
    programs.mkdir(exist_ok=True)
    for name in ("srun", "scontrol", "torchrun", "nvidia-smi"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    own = {"CALLS": str(calls), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "scripts" / script), *arguments]
    run = subprocess.run(command, cwd=folder, env=kept | own | environment, timeout=60, check=False)
    return run.returncode, [json.loads(line) for line in calls.read_text().splitlines()]


def test_every_task_of_slurm_has_its_cores_and_the_arguments(tmp_path):
    code, [(name, arguments, chosen)] = launch(tmp_path, "slurm.sbatch", "--config", "c.yaml", **SLURM)
    assert (code, name) == (0, "srun")
    assert chosen == {"SRUN_CPUS_PER_TASK": "6", "OMP_NUM_THREADS": "6"}
    assert arguments == [
        *("--kill-on-bad-exit=1", "fireopd", "fit", "--config", "c.yaml"),
        *("--trainer.default_root_dir", "runs/fireopd-77", "--trainer.num_nodes", "2", "--trainer.devices", "4"),
    ]


@pytest.mark.parametrize("code", [143, 1, 2, 137])
def test_a_job_is_queued_again_after_it_has_saved_and_not_otherwise(tmp_path, code):
    found, calls = launch(tmp_path, "slurm.sbatch", **SLURM, CODE=str(code))
    assert found == code
    assert [call[:2] for call in calls[1:]] == ([["scontrol", ["requeue", "77"]]] if code == 143 else [])


def test_a_job_that_was_queued_again_resumes(tmp_path):
    (tmp_path / "runs/fireopd-77/version_0/checkpoints/last.ckpt").mkdir(parents=True)
    _, [(_, arguments, _)] = launch(tmp_path, "slurm.sbatch", **SLURM)
    assert arguments[-2:] == ["--ckpt_path", "last"]


def test_the_lead_time_covers_a_long_step_and_a_checkpoint():
    """510 s: the step of the paper's setting at a mean of 6,000 tokens in docs/scaling.md; 60 s: its checkpoint."""
    text = (ROOT / "scripts" / "slurm.sbatch").read_text()
    [seconds] = re.findall(r"^#SBATCH --signal=TERM@(\d+)$", text, re.M)
    assert int(seconds) >= 1.5 * 510 + 60 + 60
    assert "#SBATCH --requeue" in text


def test_torchrun_gets_the_machines_and_processes(tmp_path):
    own = {"NODES": "2", "NODE": "1", "HEAD": "node0:29500", "PROCESSES": "3"}
    code, [(name, arguments, _)] = launch(tmp_path, "torchrun.sh", "--config", "c.yaml", **own)
    assert (code, name) == (0, "torchrun")
    given = dict(zip(arguments[:14:2], arguments[1:14:2], strict=True))
    assert given | {"--nnodes": "2", "--node-rank": "1", "--nproc-per-node": "3"} == given
    assert given | {"--master-addr": "node0", "--master-port": "29500"} == given
    assert arguments[14:] == [
        *("-m", "fireopd", "fit", "--config", "c.yaml"),
        *("--trainer.num_nodes", "2", "--trainer.devices", "3"),
    ]

"""Runs of a comparison as jobs of SLURM, with submitit's executor of the same process in place of that of SLURM."""

import io
import threading
from types import SimpleNamespace

import pytest
import submitit
from helpers.fake_runs import FINISH, stub
from rich.console import Console

from fireopd.analysis.compare.run_queue import RunQueue, log_tail
from fireopd.analysis.compare.slurm import SlurmLauncher, TrainingJob, slurm_executor
from fireopd.errors import UserError


def test_jobs_train_the_runs_and_return_their_exit_codes(tmp_path):
    runs = [stub(tmp_path, "good"), stub(tmp_path, "bad", code="print('no data'); raise SystemExit(3)")]
    console = Console(width=100, file=io.StringIO(), record=True)
    queue = RunQueue(2, console, SlurmLauncher(submitit.DebugExecutor(tmp_path / "jobs")))
    assert queue.train(runs, tmp_path) == [runs[1]]
    assert runs[0].finished
    assert "bad seed 1: failed (exit code 3)" in console.export_text()
    assert log_tail(runs[1]) == "no data"
    assert (runs[0].folder / "slurm_job").exists()


def test_a_run_does_not_see_the_variables_of_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    run = stub(tmp_path, "a", code="print('SLURM_NTASKS' in os.environ)")
    run.prepare()
    assert TrainingJob(run)() == 0
    assert log_tail(run) == "False"


def test_before_a_requeue_the_run_saves_a_checkpoint(tmp_path):
    save = "signal.signal(signal.SIGTERM, lambda *a: (open('saved', 'w').close(), os._exit(1)))"
    run = stub(tmp_path, "a", code=f"import signal; {save}; open('ready', 'w').close(); time.sleep(60)")
    run.prepare()
    job = TrainingJob(run)
    thread = threading.Thread(target=job)
    thread.start()
    while not (run.folder / "ready").exists():
        thread.join(0.01)
    requeued = job.checkpoint()
    thread.join()
    assert (run.folder / "saved").exists()
    assert requeued.function.run is run


@pytest.mark.parametrize(
    ("state", "submitted"), [("RUNNING", 0), ("PENDING", 0), ("CANCELLED by 1000", 1), ("UNKNOWN", 1)]
)
def test_an_active_job_of_an_earlier_comparison_is_not_submitted_again(tmp_path, state, submitted):
    run, jobs = stub(tmp_path, "a", code=FINISH), []
    run.folder.mkdir(parents=True)
    (run.folder / "slurm_job").write_text("17\n")

    def submit(function):
        jobs.append(function)
        return SimpleNamespace(job_id="18")

    def find(folder, job_id):
        assert job_id == "17"
        return SimpleNamespace(job_id=job_id, state=state)

    job = SlurmLauncher(SimpleNamespace(folder=tmp_path, submit=submit, job_class=find)).start(run, None)
    assert len(jobs) == submitted
    assert (run.folder / "slurm_job").read_text().strip() == job.job.job_id == ("18" if submitted else "17")


def test_a_job_that_ends_without_a_result_fails_with_its_state_in_the_log(tmp_path):
    run = stub(tmp_path, "a")
    run.folder.mkdir(parents=True)
    (run.folder / "slurm_job").write_text("17\n")
    paths = SimpleNamespace(stderr="17.err")
    lost = SimpleNamespace(job_id="17", state="RUNNING", paths=paths, done=lambda: True, exception=ValueError)
    executor = SimpleNamespace(folder=tmp_path, job_class=lambda **given: lost)
    job = SlurmLauncher(executor).start(run, None)
    lost.state = "NODE_FAIL"
    assert [job.exit_code(), job.exit_code()] == [1, 1]
    assert run.log.read_text() == "job 17 of SLURM ended with state NODE_FAIL; see 17.err\n"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "Add time=MINUTES"),
        ({"time": "2:00:00"}, "'2:00:00': jobs need a time limit"),
        ({"time": "60", "nodes": "2"}, "nodes"),
        ({"time": "60", "partition": ""}, "'partition': it has no value"),
        ({"time": "60", "partitoin": "gpu"}, "partitoin"),
    ],
)
def test_bad_options_are_refused(tmp_path, monkeypatch, options, part):
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as refused:
        slurm_executor(tmp_path / "jobs", options)
    assert part in str(refused.value)


def test_options_reach_the_script_of_a_job(tmp_path, monkeypatch):
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    executor = slurm_executor(tmp_path / "jobs", {"time": "60", "partition": "gpu", "gpus_per_node": "2"})
    text = executor._make_submission_file_text("train", "1")
    for line in ("--time=60", "--partition=gpu", "--gpus-per-node=2", "--job-name=fireopd"):
        assert f"#SBATCH {line}\n" in text


def test_without_slurm_the_remedy_is_a_login_node(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="not installed on this machine.*login node"):
        slurm_executor(tmp_path / "jobs", {"time": "60"})

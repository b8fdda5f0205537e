"""`fireopd compare` from the command line: on recorded rollouts, and by training."""

import json
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.fakes import LENGTHS, at_student, small_batch
from helpers.paths import ROOT
from helpers.processes import Program

from fireopd.analysis.compare import launchers
from fireopd.cli.main import main
from fireopd.objectives import ReverseKL
from fireopd.training.recordings import write_scored
from fireopd.types import Sampling

OPD = "model: {trajectory_filter: KeepAll, token_weighter: UniformWeighter, objective: ReverseKL}\n"
RANKED = """
model:
  trajectory_filter: {class_path: TeacherLikelihoodFilter, init_args: {drop_fraction: 0.5}}
  token_weighter: EntropyWeighter
  gradient_clip: 3.0
trainer: {max_epochs: 2}
"""
FIRE = "model: {trajectory_filter: TeacherLikelihoodFilter, token_weighter: EntropyWeighter, objective: ReverseKL}\n"


@pytest.fixture
def compare(tmp_path, capsys):
    """Return a function that compares methods, given as texts by name, and returns what was printed."""

    def run(methods, *arguments, batch=None, code=0):
        write_scored(tmp_path / "a.safetensors", batch or small_batch())
        for name, text in methods.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        paths = [str(tmp_path / f"{name}.yaml") for name in methods]
        given = ["compare", str(tmp_path / "a.safetensors"), "--methods", *paths, "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) if code else nullcontext() as stop:
            main([*given, *arguments])
        assert stop is None or stop.value.code == code
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        return error if code else out

    return run


def test_the_command_writes_everything(compare, tmp_path, scorer):
    printed = compare(
        {"opd": OPD, "fire": RANKED}, "--student", "tiny/student", batch=at_student(scorer, small_batch())
    )
    assert "fire: no effect on recorded rollouts: model.gradient_clip, trainer.max_epochs" in printed
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["methods"]["opd"]["keep_ratio"] == 1
    # Mean log-probabilities -1 to -4: half of the rows lie above the median.
    assert found["methods"]["fire"]["keep_ratio"] == 0.5
    assert sum(found["methods"]["opd"]["histogram"]["counts"]) == sum(LENGTHS)
    assert found["pairs"][0]["keep_overlap"] == 0.5
    assert 0 < found["gradients"]["pairs"][0]["cosine"] < 1
    assert "| opd | 1.000 | 10 |" in (tmp_path / "out" / "table.md").read_text()
    page = (tmp_path / "out" / "index.html").read_text()
    assert "://" not in page
    assert page.count("<svg") == len(list((tmp_path / "out" / "plots").glob("*.png"))) == 3


def test_the_page_does_not_depend_on_when_it_is_written(compare, tmp_path):
    pages = []
    for _ in range(2):
        compare({"opd": OPD, "fire": RANKED})
        pages.append((tmp_path / "out" / "index.html").read_text())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: {token_weigher: UniformWeighter}", ["x.yaml", "model.token_weigher is not a setting of a run"]),
        ("trainr: {max_epochs: 1}\nmodel: {}", ["trainr.max_epochs is not a setting of a run"]),
        ("model.token_weighter: UniformWeighter", ['it has no section "model"']),
        ("model: [", ["cannot be read as YAML"]),
        ("model: {token_weighter: UniformWeigher}", ["Did you mean UniformWeighter?", "the method x"]),
        (
            "model: {trajectory_filter: {class_path: TeacherLikelihoodFilter, init_args: {drop_fraction: 2}}}",
            ["[0, 1), got 2", "the method x"],
        ),
        ("model: {clip_ratio: -1}", ["clip_ratio", "greater than 0, got -1", "the method x"]),
    ],
)
def test_a_bad_method_is_named(compare, text, parts):
    error = compare({"opd": OPD, "x": text}, code=2)
    for part in parts:
        assert part in " ".join(error.split())


def test_a_signal_that_is_not_recorded_names_method_signal_file_and_remedy(compare, monkeypatch):
    monkeypatch.setattr(ReverseKL, "requires", frozenset({"base_logprobs"}))
    error = compare({"exopd": OPD}, code=2)
    assert "--methods: 'exopd': its strategies require 'base_logprobs'" in error
    assert "a.safetensors does not hold. Record rollouts with it" in error
    assert "with RolloutRecorder and --model.extra_signals '[base_logprobs]'), or leave the method out" in error


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_compared(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fireopd.cli.commands.compare.compute_statistics", lambda *given: pytest.fail("something was compared")
    )
    (tmp_path / "out").write_text("as it was")
    assert "no folder can be created there" in compare({"opd": OPD}, code=2)


def test_importance_weights_to_a_truncated_distribution_are_refused(compare):
    batch = replace(small_batch(), sampling=Sampling(top_p=0.9))
    assert "importance_cap is 5.0" in compare({"opd": OPD}, batch=batch, code=2)
    assert "keep" in compare({"free": "model: {importance_cap: null}"}, batch=batch)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "configs/opd.yaml"], "give either recorded files or a base configuration"),
        (["--", "--trainer.max_epochs=2"], "it has no effect on recorded rollouts"),
        (["--control", "opd"], "--control: 'opd': it has no effect on recorded rollouts"),
        (["--seeds", "1"], "--seeds: [1]: it has no effect on recorded rollouts"),
        (["--vary", "a=1,2"], "it has no effect on recorded rollouts"),
        (["--slurm", "time=1"], "it has no effect on recorded rollouts"),
    ],
)
def test_forms_are_not_mixed(compare, arguments, part):
    assert part in compare({"opd": OPD}, *arguments, code=2)


def test_without_matplotlib_the_extra_is_named_before_anything_is_read(compare, monkeypatch):
    monkeypatch.setattr("fireopd.cli.optional_packages.find_spec", lambda name: None)
    error = compare({"opd": "["}, code=2)
    assert "'matplotlib': this package is not installed. Install it: pip install 'fireopd[compare]'" in error


def test_an_empty_response_and_a_teacher_of_nothing_else(compare, tmp_path):
    batch = small_batch(("poet", "math", "code", "code"))
    mask = batch.response_mask.clone()
    mask[0] = False
    compare({"opd": OPD, "fire": RANKED}, batch=replace(batch, response_mask=mask))
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["methods"]["opd"]["by_teacher"]["poet"] == {"kept": 1.0, "tokens": 0.0, "weight": 0.0}


def test_a_file_without_a_response_is_refused(compare):
    batch = small_batch()
    empty = replace(batch, response_mask=torch.zeros_like(batch.response_mask))
    assert "it holds no response token" in compare({"opd": OPD}, batch=empty, code=2)


SIZES = ["--data.prompts.num_training=16", "--data.prompts.num_validation=2", "--data.batch_size=8"]
SIZES += ["--data.engine.max_response_length=24", "--trainer.callbacks=null", "--trainer.callbacks+=RunCheckpoint"]
SIZES += ["--trainer.callbacks+={class_path: Summary, init_args: {teachers: false}}"]


def arguments_of(tmp_path, *more, methods=(("opd", OPD), ("fire", FIRE))):
    for name, text in methods:
        (tmp_path / f"{name}.yaml").write_text(text)
    paths = [str(tmp_path / f"{name}.yaml") for name, _ in methods]
    config = str(ROOT / "configs" / "multi_teacher.yaml")
    given = ["compare", "--config", config, "--methods", *paths, "--out", str(tmp_path / "out"), "--seeds", "1", "2"]
    return [*given, "--", *SIZES, *more]


@pytest.fixture
def refused(capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        error = capfd.readouterr().err
        assert "Traceback" not in error
        return " ".join(error.split())

    return run


class Forked(Program):
    """Stands for `subprocess.Popen` where a comparison starts its runs."""

    def __init__(self, command, *, stdout, **settings):
        super().__init__(Path(stdout.name), *command[3:])
        self.pid, self.send_signal = self.process.pid, self.send

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode


def test_a_comparison_that_was_stopped_goes_on_and_begins_nothing_again(tmp_path, capfd, refused, monkeypatch):
    second_run = tmp_path / "out" / "runs" / "fire" / "seed_1"

    class Interrupting(Forked):
        stopping = False

        def poll(self):
            if not self.stopping and list(second_run.glob("version_*/metrics.csv")):
                self.stopping = True
                raise KeyboardInterrupt
            return super().poll()

    monkeypatch.setattr(launchers, "subprocess", SimpleNamespace(Popen=Interrupting))
    with pytest.raises(SystemExit) as stop:
        main(arguments_of(tmp_path))
    assert stop.value.code == 128 + signal.SIGINT
    assert "Stopped. Repeat the command to resume." in "".join(capfd.readouterr())
    monkeypatch.setattr(launchers, "subprocess", SimpleNamespace(Popen=Forked))
    stopped = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert "opd seed 2 (not run)" in stopped["facts"]["missing"]
    done = tmp_path / "out" / "runs" / "opd" / "seed_1"
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}

    main(arguments_of(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["facts"]["runs"] == "4 of 4 finished"
    for result in found["results"]:
        if result["measure"] in ("final", "length", "seconds"):
            assert set(result["values"]) == {"1", "2"}
    steps = {tuple(run["curves"]["train/loss"]) for run in found["runs"]}
    assert len(steps) == 1, "a resumed run has the same steps"

    capfd.readouterr()
    main(arguments_of(tmp_path))
    assert "seed 1: finished" not in capfd.readouterr().out
    error = refused(*arguments_of(tmp_path, "--model.clip_ratio=0.3"))
    assert "opd seed 1 was started with model.clip_ratio 0.2, which is now 0.3. Restore the setting" in error


@pytest.mark.parametrize(
    ("methods", "more", "parts"),
    [
        ((("x", "model: {token_weighter: Nope}"),), [], ["no TokenWeighter of that name", "the method x are invalid"]),
        ((("x", OPD),), ["--model.student=tiny/giant"], ["tiny/giant", "Use one of tiny/"]),
        ((("x", OPD),), ["--trainer.default_root_dir=y"], ["the comparison sets it"]),
        ((("x", OPD),), ["--data.prompts.num_validation=0"], ["there are no validation prompts"]),
        ((("x", OPD),), ["--trainer.callbacks=null"], ["the Summary callback is required"]),
        ((("x", OPD),), ["--data.engine.max_response_length=300"], ["do not fit into a context of 256"]),
    ],
)
def test_all_runs_are_checked_before_the_first_is_begun(tmp_path, refused, methods, more, parts):
    error = refused(*arguments_of(tmp_path, *more, methods=methods))
    for part in parts:
        assert part in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--control", "tip"], "--control: 'tip': no such method. Use one of opd, fire"),
        (["--jobs", "0"], "--jobs: 0: must be at least 1"),
        (["--seeds", "1", "1"], "a seed occurs twice"),
        (["--beds", "bed.yaml", "--vary", "a=1,2"], "--vary: ['a=1,2']: has no effect on --beds"),
        (["--student", "tiny/student"], "gradients can only be compared on recorded rollouts"),
    ],
)
def test_options_that_make_no_sense(tmp_path, refused, options, part):
    given = arguments_of(tmp_path)
    assert part in refused(*given[: given.index("--")], *options)


def test_methods_are_told_apart_by_the_names_of_their_files(tmp_path, refused):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "opd.yaml").write_text(OPD)
    given = arguments_of(tmp_path)
    place = given.index("--methods") + 1
    assert "has the same name" in refused(*given[:place], str(tmp_path / "sub" / "opd.yaml"), *given[place:])
    assert "no such file" in refused(*given[:place], str(tmp_path / "tip.yaml"), *given[place:])


def test_a_failed_run_ends_in_exit_code_1_with_the_end_of_its_log(tmp_path, capfd):
    broken = OPD.replace(
        "}\n", ", max_skipped_steps: 1, trajectory_filter: {class_path: LengthFilter, init_args: {min_tokens: 999}}}\n"
    )
    given = arguments_of(tmp_path, methods=(("drops_all", broken.replace("trajectory_filter: KeepAll, ", "")),))
    with pytest.raises(SystemExit) as stop:
        main([*given[: given.index("--seeds")], "--seeds", "1", *given[given.index("--") :]])
    assert stop.value.code == 1
    out = capfd.readouterr().out
    assert "drops_all seed 1 failed. The end of" in out
    assert "the filter dropped every trajectory" in out

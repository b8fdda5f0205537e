"""Comparing by training: what a run has left, planning, the queue, the report, and the command as a user starts it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from fireopd.cli import main
from fireopd.comparisons.plans import PlannedRun, plan
from fireopd.comparisons.results import Band, band, results, smoothed
from fireopd.comparisons.runs import OVERALL, Run, has_checkpoint, is_finished, read_curves, read_run
from fireopd.comparisons.tables import Estimate, Table
from fireopd.comparisons.training_reports import training_report
from fireopd.comparisons.trainings import RunQueue, locked, log_tail
from fireopd.errors import UserError

ROOT = Path(__file__).parents[1]
OPD = "model: {trajectory_filter: KeepAll, token_weighter: UniformWeighter, objective: ReverseKL}\n"
FIRE = "model: {trajectory_filter: TeacherLikelihoodFilter, token_weighter: EntropyWeighter, objective: ReverseKL}\n"


def write_curves(folder, curves):
    with SummaryWriter(str(folder)) as writer:
        for tag, curve in curves.items():
            for step, value in curve.items():
                writer.add_scalar(tag, value, step)


def curves_of(accuracy, finished=0.5, **more):
    """Return curves of two tasks: `math` as given, `code` always 0.5."""
    end = max(accuracy)
    found = {"val/math/avg_at_k": accuracy, "val/code/avg_at_k": dict.fromkeys(accuracy, 0.5)}
    for task in ("math", "code"):
        found |= {f"val/{task}/finished": {0: 1.0, end: finished}, f"val/{task}/length": {end: 20.0}}
    return found | {"val/avg_at_k": accuracy, "rollout/length": {1: 10.0, 2: 30.0}} | more


def run_of(method, seed, accuracy, **more):
    return Run(method, seed, Path("x"), 7.0, curves_of(accuracy, **more))


def test_measures_of_a_run():
    run = run_of("opd", 1, {0: 0.2, 5: 0.8, 10: 0.6}, **{"val/math/accuracy_given_finish": {5: 0.9, 10: 0.7}})
    values = run.measures()
    assert run.tasks == ["code", "math"]
    assert (values["math", "final"], values["math", "peak"]) == (0.6, 0.8)
    assert values[OVERALL, "final"] == pytest.approx(0.55)
    assert values["math", "accuracy_given_finish"] == 0.7
    assert (OVERALL, "accuracy_given_finish") not in values, "a mean over tasks needs all of them"
    assert values["math", "finished"] == 0.5
    assert (values[OVERALL, "length"], values[OVERALL, "training_length"], values[OVERALL, "seconds"]) == (20, 20, 7)


def test_accuracy_given_finish_is_not_taken_from_an_earlier_validation():
    run = run_of("opd", 1, {0: 0.2, 10: 0.0}, **{"val/math/accuracy_given_finish": {0: 0.9}})
    assert ("math", "accuracy_given_finish") not in run.measures()


def test_a_run_in_parts_is_read_as_one(tmp_path):
    write_curves(tmp_path / "version_0", {"train/loss": {1: 1.0, 2: 2.0, 3: 3.0}, "val/math/avg_at_k": {0: 0.25}})
    write_curves(tmp_path / "version_1", {"train/loss": {2: 20.0, 3: 30.0, 4: 40.0}})
    (tmp_path / "version_10").mkdir()
    write_curves(tmp_path / "version_10", {"train/loss": {4: 400.0}})
    curves = read_curves(tmp_path)
    assert curves == {"train/loss": {1: 1.0, 2: 20.0, 3: 30.0, 4: 400.0}, "val/math/avg_at_k": {0: 0.25}}
    assert not is_finished(tmp_path)
    (tmp_path / "version_10" / "summary.json").write_text('{"seconds": 3.5}')
    assert is_finished(tmp_path)
    assert read_run("opd", 1, tmp_path).seconds == 3.5


def test_results_are_paired_by_seed_and_name_what_is_missing():
    runs = [run_of("opd", seed, {0: 0.1, 10: 0.5 + seed / 10}) for seed in (1, 2, 3)]
    runs += [run_of("fire", seed, {0: 0.1, 10: 0.6 + seed / 10}) for seed in (1, 3)]
    found = {(r.task, r.measure, r.method): r for r in results(runs, "opd")}
    fire = found["math", "final", "fire"]
    assert fire.values == pytest.approx({1: 0.7, 3: 0.9})
    assert (fire.mean, fire.standard_error) == pytest.approx((0.8, 0.1))
    assert fire.difference.values == pytest.approx({1: 0.1, 3: 0.1})
    assert (fire.difference.low, fire.difference.high) == pytest.approx((0.1, 0.1))
    assert fire.difference.verdict == "higher in all 2"
    assert found["math", "final", "opd"].difference is None
    assert found["code", "final", "fire"].difference.verdict == "no difference shown"
    assert next(iter(found)) == (OVERALL, "final", "opd")


def test_bands_are_over_common_steps():
    runs = [run_of("opd", 1, {0: 0.0, 5: 0.4, 10: 0.8}), run_of("opd", 2, {0: 0.2, 10: 0.4, 20: 1.0})]
    found = band(runs, "val/math/avg_at_k")
    assert (found.steps, found.lowest, found.highest) == ([0, 10], [0.0, 0.4], [0.2, 0.8])
    assert found.mean == pytest.approx([0.1, 0.6])
    assert band(runs, "nothing") is None
    assert isinstance(band(runs[:1], "rollout/length"), Band)


def test_smoothing_is_symmetric_so_that_a_line_stays_a_line():
    line = {step: 2.0 * step for step in range(9)}
    assert smoothed(line, 5) == pytest.approx(line)
    assert smoothed({1: 0.0, 2: 3.0, 7: 0.0}, 3) == {1: 0.0, 2: 1.0, 7: 0.0}
    assert smoothed(line, 1) == line


TABLE = Table("Title & <b>", ["name", "value"], [["a|b", Estimate(0.5, 0.1)], ["<i>", None], ["c", 1234.5]], "A note.")


def test_a_table_in_three_forms():
    assert "| a\\|b | 0.500 ± 0.100 |" in TABLE.to_markdown()
    assert "| --- | ---: |" in TABLE.to_markdown()
    page = TABLE.to_html()
    assert "<h2>Title &amp; &lt;b&gt;</h2>" in page
    assert '<td class="number" data-value="0.5">0.500 ± 0.100</td>' in page
    assert '<td class="number">-</td>' in page
    assert "<td>&lt;i&gt;</td>" in page
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(TABLE.to_rich())
    assert "1234" in console.export_text()


@dataclass(frozen=True)
class Stub(PlannedRun):
    """A run that is a line of Python, in its folder."""

    code: str = ""

    def command(self):
        return [sys.executable, "-S", "-c", f"import os, time; os.chdir({str(self.folder)!r}); {self.code}"]


FINISH = "os.makedirs('version_0', exist_ok=True); open('version_0/summary.json', 'w').write('{}')"


def stub(tmp_path, method, seed=1, code=FINISH):
    return Stub(method, seed, tmp_path / "runs" / method / f"seed_{seed}", (), {"model.lr": 1}, code)


@pytest.fixture
def console():
    return Console(width=100, file=io.StringIO(), record=True)


def test_a_run_that_fails_is_reported_with_its_log_and_the_others_go_on(tmp_path, console):
    fails = stub(tmp_path, "bad", code="print('line one'); raise SystemExit(3)")
    silent = stub(tmp_path, "silent", code="print('no summary')")
    runs = [fails, stub(tmp_path, "good"), silent]
    queue = RunQueue(1, console)
    assert queue.train(runs, tmp_path) == [fails, silent]
    assert [run.finished for run in runs] == [False, True, False]
    assert log_tail(fails) == "line one"
    text = console.export_text()
    assert "bad seed 1: failed (exit code 3)" in text
    assert "good seed 1: finished" in text


def test_what_is_finished_is_not_run_again(tmp_path, console):
    done, new = stub(tmp_path, "done", code="raise SystemExit(1)"), stub(tmp_path, "new")
    (done.folder / "version_0").mkdir(parents=True)
    (done.folder / "version_0" / "summary.json").write_text("{}")
    assert RunQueue(2, console).train([done, new], tmp_path) == []
    assert not done.log.exists()


def test_runs_go_on_at_a_time_and_share_the_threads(tmp_path, console, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    meet = "open('here', 'w').close()\nwhile not os.path.exists('../../{}/seed_1/here'): time.sleep(0.01)\n"
    code = "print(os.environ['OMP_NUM_THREADS']); " + FINISH
    pairs = ("a", "b"), ("b", "a")
    runs = [stub(tmp_path, own, code=f"exec({meet.format(other)!r}); {code}") for own, other in pairs]
    assert RunQueue(2, console).train(runs, tmp_path) == []
    assert [log_tail(run) for run in runs] == ["2", "2"]


def test_an_interrupt_stops_the_runs_and_waits_for_them(tmp_path, console):
    code = (
        "import signal; signal.signal(signal.SIGTERM, lambda *a: (open('saved', 'w').close(), os._exit(1))); "
        f"os.kill({os.getpid()}, signal.SIGTERM); time.sleep(60)"
    )
    runs = [stub(tmp_path, "a", code=code), stub(tmp_path, "b")]
    queue = RunQueue(1, console)
    with pytest.raises(KeyboardInterrupt):
        queue.train(runs, tmp_path)
    assert (runs[0].folder / "saved").exists()
    assert queue.active[0].process.returncode == 1
    assert queue.failed == []
    assert not runs[1].folder.exists()
    with locked(tmp_path):
        pass


def test_a_folder_is_for_one_comparison_at_a_time(tmp_path, console):
    with locked(tmp_path), pytest.raises(UserError, match="another comparison, or a run of one, is at work here"):
        RunQueue(1, console).train([stub(tmp_path, "a")], tmp_path)


def test_a_run_that_cannot_go_on_is_begun_anew_and_one_that_can_goes_on(tmp_path):
    run = PlannedRun("opd", 1, tmp_path / "seed_1", ("--config", "x"), {"a": 1})
    (run.folder / "version_0").mkdir(parents=True)
    run.prepare()
    assert not (run.folder / "version_0").exists()
    assert run.command()[3:] == ["fit", "--config", "x"]
    (run.folder / "version_0" / "checkpoints").mkdir(parents=True)
    (run.folder / "version_0" / "checkpoints" / "last.ckpt").touch()
    run.prepare()
    assert has_checkpoint(run.folder)
    assert run.command()[-2:] == ["--ckpt_path", "last"]


def test_the_plan_takes_all_methods_of_a_seed_before_the_next(tmp_path):
    arguments = {"opd": ["--config", "opd.yaml"], "fire": ["--config", "fire.yaml"]}
    settings = {name: {"seed_everything": 1, "trainer.default_root_dir": "runs", "lr": 1} for name in arguments}
    runs = plan(tmp_path, arguments, settings, [1, 2])
    assert [run.name for run in runs] == ["opd seed 1", "fire seed 1", "opd seed 2", "fire seed 2"]
    assert runs[3].arguments[:4] == ("--config", "fire.yaml", "--seed_everything", "2")
    assert runs[3].settings == {"lr": 1}
    runs[2].prepare()
    plan(tmp_path, arguments, settings, [1, 2, 3])
    settings["opd"]["lr"] = 2
    with pytest.raises(UserError, match="opd seed 2 was begun with lr 1, which is now 2"):
        plan(tmp_path, arguments, settings, [1, 2])
    del settings["opd"]["lr"]
    with pytest.raises(UserError, match="lr 1, which is now null"):
        plan(tmp_path, arguments, settings, [2])


class Tags(HTMLParser):
    """Checks that every element that is opened is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "path", "use", "image"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "image"):
            assert self.open.pop() == tag


@pytest.fixture
def planned(tmp_path):
    """Two methods with three seeds, of which one has not come to its end."""
    runs = [stub(tmp_path, method, seed) for seed in (1, 2, 3) for method in ("opd", "<fire>")]
    for run in runs[:-1]:
        gain = 0.1 if run.method == "opd" else 0.1 + run.seed / 10
        write_curves(run.folder / "version_0", curves_of({0: 0.25, 10: 0.25 + gain}))
        (run.folder / "version_0" / "summary.json").write_text('{"seconds": 5}')
    return runs


def test_the_report_says_what_was_found_and_what_is_missing(planned, tmp_path):
    report = training_report(planned, [planned[-1]], "opd", "base.yaml")
    report.write(tmp_path)
    assert report.facts["missing"] == "<fire> seed 3 (failed)"
    assert report.facts["runs"] == "5 of 6 finished"
    found = json.loads((tmp_path / "comparison.json").read_text())
    (fire,) = (r for r in found["results"] if (r["task"], r["measure"], r["method"]) == ("math", "final", "<fire>"))
    assert fire["difference"]["values"] == pytest.approx({"1": 0.1, "2": 0.2})
    assert fire["verdict"] == "higher in all 2"
    assert found["runs"][0]["curves"]["val/math/avg_at_k"]["10"] == pytest.approx(0.35)
    table = (tmp_path / "table.md").read_text()
    assert "| final | <fire> | 2 | 0.150 | 0.100 | 0.200 | higher in all 2 |" in table
    names = ["differences", "learning_curves", "training_curves"]
    assert sorted(path.stem for path in (tmp_path / "plots").iterdir()) == names


def test_the_page_needs_nothing_else_and_calls_no_winner(planned, tmp_path):
    training_report(planned, [], "opd", "base.yaml").write(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|@import|src=|url\((?!#)", page)
    assert page.count("<svg") == 3
    assert "&lt;fire&gt;" in page
    assert "<fire>" not in page
    assert "currentColor" in page
    assert not re.search("better|worse|winner|significant", page)
    checker = Tags()
    checker.feed(page)
    assert checker.open == []


def test_one_seed_has_no_interval(planned, tmp_path):
    table = training_report(planned[:2], [], "opd", "base.yaml").tables[1].to_markdown()
    assert "no interval: 1 common seed" in table
    assert "higher" not in table.split("|", 1)[1]


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


def test_a_comparison_that_was_stopped_goes_on_and_begins_nothing_again(tmp_path, capfd, refused):
    command = [sys.executable, "-m", "fireopd", *arguments_of(tmp_path)]
    with (tmp_path / "first.txt").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log)
        second_run = tmp_path / "out" / "runs" / "fire" / "seed_1"
        deadline = time.monotonic() + 200
        while not list(second_run.glob("version_*/events*")):
            assert first.poll() is None, (tmp_path / "first.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=120) == 130
    assert "Stopped. The same command goes on where it was." in (tmp_path / "first.txt").read_text()
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
    assert len(steps) == 1, "a run that went on has the same steps"

    capfd.readouterr()
    main(arguments_of(tmp_path))
    assert "seed 1: finished" not in capfd.readouterr().out
    error = refused(*arguments_of(tmp_path, "--model.clip_ratio=0.3"))
    assert "opd seed 1 was begun with model.clip_ratio 0.2, which is now 0.3. Take that back" in error


@pytest.mark.parametrize(
    ("methods", "more", "parts"),
    [
        ((("x", "model: {token_weighter: Nope}"),), [], ["no TokenWeighter of that name", "the method x are refused"]),
        ((("x", OPD),), ["--model.student=tiny/giant"], ["tiny/giant", "The embedded models are"]),
        ((("x", OPD),), ["--trainer.default_root_dir=y"], ["the comparison sets this itself"]),
        ((("x", OPD),), ["--data.prompts.num_validation=0"], ["there are no validation prompts"]),
        ((("x", OPD),), ["--trainer.callbacks=null"], ["there is no Summary"]),
        ((("x", OPD),), ["--trainer.logger=false"], ["there is no TensorBoardLogger"]),
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
        (["--control", "tip"], "--control: 'tip': no such method. The methods are opd, fire"),
        (["--jobs", "0"], "--jobs: 0: not a number of runs"),
        (["--seeds", "1", "1"], "a seed stands there twice"),
        (["--student", "tiny/student"], "gradients are compared on recorded rollouts"),
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

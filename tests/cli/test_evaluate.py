"""`fireopd evaluate` from the command line."""

import json
import os
import shutil
import signal
from contextlib import nullcontext

import pytest
import torch
from helpers.processes import Program

from fireopd.analysis.evaluate import sampling
from fireopd.analysis.evaluate.records import read_records
from fireopd.atomic_files import lock
from fireopd.cli.main import main
from fireopd.engines import HFEngine
from fireopd.engines.rollout import row_seed
from fireopd.models.loading import EMBEDDED
from fireopd.prompts.tiny_tasks import problems

FILES = ("responses/tiny--student/arithmetic.jsonl", "summary.json", "table.md")


def tear():
    """Kill the program while it writes a line."""
    append = sampling.append_records

    def torn(path, records):
        if path.exists() and path.read_bytes().count(b"\n") >= 4:
            with path.open("ab") as file:
                file.write(records[0].line.encode()[:200])
            os.kill(os.getpid(), signal.SIGKILL)
        append(path, records)

    sampling.append_records = torn


@pytest.fixture
def benchmark(tmp_path):
    drawn = problems("math", 0, held_out=True)
    rows = [{"problem": p.text, "answer": p.answer} for p in (next(drawn) for _ in range(7))]
    path = tmp_path / "arithmetic.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def arguments(benchmark, tmp_path):
    """Return a function that builds the arguments of the command."""

    def given(*more, models=("tiny/student",), out="out"):
        shared = ("--verifier", "FinalAnswer", "--max_response_length", "40", "--batch_size", "2", "--responses", "3")
        return ["evaluate", *models, "--benchmark", str(benchmark), "--out", str(tmp_path / out), *shared, *more]

    return given


@pytest.fixture
def evaluate(arguments, capsys):
    """Return a function that evaluates and returns the printed text."""

    def run(*more, code=0, **places):
        with pytest.raises(SystemExit) if code else nullcontext() as stop:
            main(arguments(*more, **places))
        assert stop is None or stop.value.code == code
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        return " ".join((error if code else out).split())

    return run


def test_a_run_that_is_killed_goes_on_to_the_same_numbers(evaluate, arguments, tmp_path):
    evaluate(out="whole")
    killed = Program(tmp_path / "log", *arguments(), before=tear)
    assert killed.wait() == -signal.SIGKILL, killed.said
    torn = (tmp_path / "out" / FILES[0]).read_bytes()
    assert torn.count(b"\n") == 4
    assert not torn.endswith(b"\n")
    evaluate()
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_there_is_not_sampled_again(evaluate, tmp_path, monkeypatch):
    evaluate("--limit=3")
    first = (tmp_path / "out" / FILES[0]).read_bytes()
    evaluate()
    assert (tmp_path / "out" / FILES[0]).read_bytes().startswith(first)
    whole = (tmp_path / "out" / "summary.json").read_bytes()
    monkeypatch.setattr(HFEngine, "setup", lambda *a: pytest.fail("a model was loaded"))
    evaluate()
    assert (tmp_path / "out" / "summary.json").read_bytes() == whole
    printed = evaluate("--limit=3", "--k", "1", "3")
    assert "pass@3" in printed
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["benchmarks"]["arithmetic"]["problems"] == 3


def test_a_row_depends_on_problem_seed_and_index_alone(evaluate, tmp_path):
    evaluate(models=("all=tiny/student",))
    evaluate("--batch_size=7", "--engine.batch_size=4", models=("parts=tiny/student",))
    evaluate("--seed=1", models=("other=tiny/student",), out="other")
    rows, parts = (
        read_records(tmp_path / "out" / "responses" / name / "arithmetic.jsonl") for name in ("all", "parts")
    )
    assert rows == parts
    [record, *_] = rows.values()
    assert [r.seed for r in record.responses] == [row_seed(0, 0, "arithmetic:1", index) for index in range(3)]
    assert len({r.text for row in rows.values() for r in row.responses}) > 7
    assert rows != read_records(tmp_path / "other" / "responses" / "other" / "arithmetic.jsonl")


def test_records_say_what_was_written_and_what_it_is_worth(evaluate, tmp_path):
    evaluate()
    for record in read_records(tmp_path / "out" / FILES[0]).values():
        for response in record.responses:
            assert response.reward == float(response.final_answer == record.answer)
            assert (response.final_answer is None) == ("#" not in response.text)
            assert response.tokens == len(response.text) + response.finished, "a character a token, and the end"


def test_two_models_side_by_side_with_their_difference(evaluate, tmp_path):
    printed = evaluate(models=("student=tiny/student", "teacher=tiny/math"))
    assert "Differences to student" in printed
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["benchmarks"]["arithmetic"]
    values = {name: numbers["avg@3"]["value"] for name, numbers in found["models"].items()}
    difference = found["differences"]["teacher"]["avg@3"]
    assert difference["value"] == pytest.approx(values["teacher"] - values["student"])
    assert difference["low"] <= difference["value"] <= difference["high"]
    said = {"higher"} if difference["low"] > 0 else {"no difference shown"} if difference["high"] >= 0 else {"lower"}
    assert difference["verdict"] in said


def test_a_model_can_be_added_later(evaluate, tmp_path):
    evaluate("--limit=2", models=("one=tiny/student",))
    evaluate("--limit=2", models=("two=tiny/math",))
    there = json.loads((tmp_path / "out" / "settings.json").read_text())["models"]
    assert {name: model["model"] for name, model in there.items()} == {"one": "tiny/student", "two": "tiny/math"}


def test_temperature_0_is_greedy(evaluate, tmp_path):
    evaluate("--temperature=0", "--responses=1", "--limit=3", models=("a=tiny/math",))
    evaluate("--temperature=0", "--responses=1", "--limit=3", "--seed=9", models=("a=tiny/math",), out="again")
    one, two = (read_records(tmp_path / out / "responses/a/arithmetic.jsonl") for out in ("out", "again"))
    assert [r.responses[0].text for r in one.values()] == [r.responses[0].text for r in two.values()]


def test_a_config_file_gives_defaults(evaluate, tmp_path):
    (tmp_path / "ours.yaml").write_text("responses: 2\nengine: {class_path: HFEngine, init_args: {dtype: bfloat16}}\n")
    shared = ["--limit=1", "--config", str(tmp_path / "ours.yaml")]
    evaluate(*shared)
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())["settings"]
    assert (settings["responses"], settings["engine.dtype"]) == (2, "bfloat16")


def test_programs_are_exported_without_answers(evaluate, benchmark, tmp_path):
    benchmark.write_text('{"problem": "1;+1", "question_id": "q1"}\n{"problem": "2;+1", "question_id": "q2"}\n')
    assert "its problems have no answers" in evaluate(code=2)
    printed = evaluate("--export=livecodebench")
    path = tmp_path / "out" / "exports" / "tiny--student" / "arithmetic.livecodebench.json"
    assert f"Exported for livecodebench: {path}" in printed
    rows = json.loads(path.read_text())
    assert [(row["question_id"], len(row["code_list"])) for row in rows] == [("q1", 3), ("q2", 3)]
    assert "avg@3" not in printed


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (["--seed=1"], "seed 0, which is now 1"),
        (["--temperature=0.5"], "temperature 1.0, which is now 0.5"),
        (["--suffix=abc"], 'suffix null, which is now "abc"'),
        (["--engine.dtype=bfloat16"], 'engine.dtype "float32", which is now "bfloat16"'),
        (["--verifier.marker=x"], 'verifier.marker "#", which is now "x"'),
    ],
)
def test_other_settings_than_those_of_the_folder_are_refused(evaluate, more, key):
    evaluate("--limit=1")
    assert key in evaluate("--limit=1", *more, code=2)


def test_other_weights_or_problems_of_the_same_name_are_refused(evaluate, benchmark, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(EMBEDDED / "student", model)
    evaluate("--limit=2", models=(f"m={model}",))
    assert "m is another model than before" in evaluate(models=("m=tiny/math",), code=2)
    shutil.copytree(EMBEDDED / "math", model, dirs_exist_ok=True)
    assert "different weights" in evaluate("--limit=2", models=(f"m={model}",), code=2)
    shutil.copytree(EMBEDDED / "student", model, dirs_exist_ok=True)
    lines = benchmark.read_text().splitlines(keepends=True)
    benchmark.write_text("".join([lines[1], lines[0], *lines[2:]]))
    assert "it differs from the problem with this id" in evaluate("--limit=2", models=(f"m={model}",), code=2)


def test_two_evaluations_cannot_write_into_one_folder(evaluate, tmp_path):
    with lock(tmp_path / "out"):
        assert "another evaluation is using this folder" in evaluate(code=2)
    evaluate("--limit=1")


@pytest.mark.parametrize("out", ["a file", "a file/out"])
def test_a_folder_that_cannot_be_made_is_refused(evaluate, tmp_path, monkeypatch, out):
    monkeypatch.setattr(HFEngine, "setup", lambda *a: pytest.fail("a model was loaded"))
    (tmp_path / "a file").write_text("as it was")
    assert "no folder can be created there" in evaluate(out=out, code=2)
    assert (tmp_path / "a file").read_text() == "as it was"


@pytest.mark.parametrize(
    ("models", "more", "said"),
    [
        (["tiny/studen"], [], "MODEL: 'tiny/studen': no embedded model of that name"),
        (["tiny/math", "tiny/math"], [], "two models have the same label"),
        (["a=tiny/math", "a=tiny/code"], [], "two models have the same label"),
        (["a="], [], "empty label or model"),
        (["tiny/math"], ["--responses=0"], "--responses: 0: must be at least 1"),
        (["tiny/math"], ["--limit=0"], "--limit: 0: must be at least 1"),
        (["tiny/math"], ["--k", "2", "4"], "--k: 4: pass@4 cannot be estimated from 3 responses"),
        (["tiny/math"], ["--temperature=0"], "at temperature 0 all responses to a problem are identical"),
        (["tiny/math"], ["--temperature=-1"], "--temperature: -1.0: must be at least 0"),
        (["tiny/math"], ["--top_p=0"], "--top_p: 0.0: must be greater than 0"),
        (["tiny/math"], ["--engine.temperature=0.5"], "temperature: no such setting"),
        (["tiny/math"], ["--engine=VLLMServerEngine"], "samples from the model on its servers"),
        (["tiny/math"], ["--engine=HFEngin"], "Did you mean HFEngine?"),
        (["tiny/math"], ["--verifier=Nope"], "no Verifier of that name is installed"),
        (["tiny/math"], ["--max_response_length=100000"], "do not fit into a context of"),
        (["tiny/math"], ["--export=lm-eval"], "export"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(evaluate, monkeypatch, tmp_path, models, more, said):
    monkeypatch.setattr(HFEngine, "setup", lambda *a: pytest.fail("a model was loaded"))
    assert said in evaluate(*more, models=models, code=2)
    assert not list(tmp_path.rglob("responses"))


def test_a_folder_with_an_equals_sign_is_a_model(evaluate, tmp_path, monkeypatch):
    shutil.copytree(EMBEDDED / "student", tmp_path / "lr=1" / "m")
    monkeypatch.chdir(tmp_path)
    evaluate("--limit=1", models=("lr=1/m",))
    assert (tmp_path / "out" / "responses" / "lr=1--m").is_dir()


def test_ctrl_c_leaves_what_can_go_on(evaluate, monkeypatch, capsys, arguments, tmp_path):
    generate, calls = HFEngine.generate, []

    def interrupted(self, prompts, seeds):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, prompts, seeds)

    monkeypatch.setattr(HFEngine, "generate", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(arguments())
    assert stop.value.code == 130
    assert "Repeat the command to resume" in capsys.readouterr().out
    assert len(read_records(tmp_path / "out" / FILES[0])) == 2
    evaluate()
    assert calls == [6, 6, 6, 6, 3]


def test_the_global_generator_is_left_alone(evaluate):
    state = torch.get_rng_state()
    evaluate("--limit=1")
    assert torch.equal(state, torch.get_rng_state())

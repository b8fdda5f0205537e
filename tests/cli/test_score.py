"""The command `score`: scores of teachers for recorded rollouts and texts, resumed with the same bytes."""

import json
from dataclasses import replace

import pytest
import torch

from fireopd.analysis import score_files
from fireopd.cli.main import main
from fireopd.engines.rollout import collate
from fireopd.models.loading import load_tokenizer
from fireopd.prompts import TinyPrompts
from fireopd.prompts.tokenization import tokenize
from fireopd.teachers import HFTeacher, score_by_teachers
from fireopd.training.recorded_rollouts import RecordedRollouts
from fireopd.training.recordings import read_scored, vocabulary_digest, write_scored
from fireopd.training.stopwatch import Stopwatch
from fireopd.types import Response, Sampling, ScoredBatch

MATH, CODE = ("{class_path: HFTeacher, init_args: {path: tiny/%s}}" % name for name in ("math", "code"))  # noqa: UP031
TEACHERS = f"{{math: {MATH}, code: {CODE}}}"
STUDENT = "--student=tiny/student"


@pytest.fixture(scope="module")
def rollouts():
    tokenizer = load_tokenizer("tiny/student", "x")
    prompts = tokenize(TinyPrompts(num_training=10, num_validation=0).training(0), tokenizer, {}, "x")
    responses = [Response((5 + row, 7, 1)[: 1 + row % 3], (-0.5,) * (1 + row % 3), True) for row in range(10)]
    return collate(prompts, responses, range(10), Sampling(0.8), policy_version=3)


@pytest.fixture(scope="module")
def recording(rollouts, tmp_path_factory):
    file = tmp_path_factory.mktemp("recorded") / "step.safetensors"
    digest = vocabulary_digest(load_tokenizer("tiny/student", "x"))
    signals = {"sampling_logprobs": rollouts.sampling_logprobs, "student_logprobs": rollouts.sampling_logprobs}
    write_scored(file, ScoredBatch.of(rollouts, signals), "tiny/student", digest)
    return file


def score(*arguments):
    main(["score", *map(str, arguments), "--teachers", TEACHERS, "--batch_size=4"])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        score(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_stopped_command_continues_and_gives_the_same_bytes(rollouts, recording, tmp_path, monkeypatch, capsys):
    score(recording, "--out", tmp_path / "whole")
    calls = []

    def stops(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score_by_teachers(*arguments, **settings)

    monkeypatch.setattr(score_files, "score_by_teachers", stops)
    with pytest.raises(SystemExit):
        score(recording, "--out", tmp_path / "parts")
    assert not (tmp_path / "parts" / "step.safetensors").exists()
    assert len(list((tmp_path / "parts" / ".step.safetensors.parts").iterdir())) == 1
    score(recording, "--out", tmp_path / "parts")
    assert len(calls) == 2 + 2  # one part of three was kept
    monkeypatch.setattr(HFTeacher, "setup", None)
    score(recording, "--out", tmp_path / "parts")  # nothing is left: no teacher is loaded
    found = [(tmp_path / name / "step.safetensors").read_bytes() for name in ("whole", "parts")]
    assert found[0] == found[1]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir() if "lock" not in path.name) == [
        "settings.json",
        "step.safetensors",
    ]
    assert (
        "teacher_logprobs"
        in RecordedRollouts([tmp_path / "parts"]).load("tiny/student", load_tokenizer("tiny/student", "x")).signals
    )


def test_scores_are_those_of_the_teachers_and_the_rest_is_kept(rollouts, recording, tmp_path):
    score(recording, "--out", tmp_path)
    batch = read_scored(tmp_path / "step.safetensors", required_signals=())
    teachers = {"math": HFTeacher("tiny/math"), "code": HFTeacher("tiny/code")}
    for name, teacher in teachers.items():
        teacher.setup(name, torch.device("cpu"))
    expected, _ = score_by_teachers(teachers, rollouts, Stopwatch(), entropy=True, distributions=False)
    torch.testing.assert_close(batch.teacher_logprobs, expected.logprobs)
    torch.testing.assert_close(batch.teacher_entropy, expected.entropy)
    assert batch.sampling_logprobs.equal(rollouts.sampling_logprobs)
    assert batch.tokens.equal(rollouts.tokens)
    assert (batch.policy_version, batch.sampling, batch.tasks) == (3, Sampling(0.8), rollouts.tasks)
    assert batch.groups.equal(rollouts.groups)


def test_lines_of_prompt_and_response_are_scored(tmp_path):
    tokenizer = load_tokenizer("tiny/student", "x")
    file = tmp_path / "texts.jsonl"
    rows = [{"problem": "1+2", "teacher": "math", "response": "3"}] * 2
    rows.append({"problem": "4", "teacher": "code", "response": "44", "finished": False})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score(file, "--out", tmp_path / "out", STUDENT)
    batch = read_scored(
        tmp_path / "out" / "texts.safetensors", required_signals=("teacher_logprobs", "teacher_entropy")
    )
    own = [batch.tokens[row][batch.response_mask[row]].tolist() for row in range(3)]
    eos = tokenizer.eos_token_id
    assert own == [[*tokenizer("3")["input_ids"], eos]] * 2 + [tokenizer("44")["input_ids"]]
    assert batch.groups.tolist() == [0, 0, 1]
    assert batch.teachers == ("math", "math", "code")
    assert batch.signals.keys() == {"teacher_logprobs", "teacher_entropy"}


def test_bad_input_is_refused_before_a_model_is_loaded(rollouts, recording, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(HFTeacher, "setup", None)
    file = tmp_path / "texts.jsonl"
    out = ("--out", tmp_path / "out")
    file.write_text('{"problem": "1", "teacher": "math"}\n')
    assert 'the row has no text "response"' in refused(capsys, file, *out, STUDENT)
    assert "--student: None: the files name no student" in refused(capsys, file, *out)
    file.write_text('{"problem": "1", "response": "2"}\n')
    assert "the row names no teacher. Name its teacher in the row" in refused(
        capsys, file, *out, "--student=tiny/student"
    )
    file.write_text('{"problem": "1", "response": "2", "teacher": "law"}\n')
    assert "--teachers: 'law': " in refused(capsys, file, *out, STUDENT)
    assert "cannot be read" in refused(capsys, tmp_path / "none.safetensors", *out, STUDENT)
    assert "it is the folder of" in refused(capsys, recording, "--out", recording.parent)
    other = tmp_path / "other.safetensors"
    write_scored(other, ScoredBatch.of(rollouts, {}), "x", "0" * 32)
    assert "those of another student (x), with another vocabulary" in refused(
        capsys, other, *out, "--student=tiny/student"
    )


def test_other_content_or_teachers_do_not_continue_a_folder(rollouts, recording, tmp_path, capsys):
    score(recording, "--out", tmp_path)
    other = tmp_path / recording.name.replace("step", "x")
    write_scored(other.with_name("step.safetensors.new"), ScoredBatch.of(replace(rollouts, policy_version=4), {}))
    changed = tmp_path / "in" / recording.name
    changed.parent.mkdir()
    other.with_name("step.safetensors.new").rename(changed)
    assert "was started with files" in refused(capsys, changed, "--out", tmp_path, STUDENT)

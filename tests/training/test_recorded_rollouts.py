"""Recorded rollouts as the source of training: the same step as the run that recorded them, without its models."""

from dataclasses import replace

import pytest
import torch
from helpers.training import Notes, fit, make_data, make_module, make_trainer
from lightning.pytorch.callbacks import Callback

from fireopd.callbacks import RolloutRecorder
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.filters import KeepAll
from fireopd.models.loading import load_tokenizer
from fireopd.objectives import GeneralizedJSD, GroupRewardReverseKL
from fireopd.teachers import HFTeacher
from fireopd.training.recorded_loader import RecordedLoader
from fireopd.training.recorded_rollouts import RecordedRollouts
from fireopd.training.recordings import read_scored, vocabulary_digest, write_scored
from fireopd.training.run_checks import problems
from fireopd.types import Sampling
from fireopd.weighters import UniformWeighter


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train two steps of eight trajectories, and return the notes and the folder of the recording."""
    folder = tmp_path_factory.mktemp("run")
    notes = Notes()
    data = make_data(num_training=8, batch_size=4, responses_per_prompt=2)
    fit(make_module(), data, folder, callbacks=[RolloutRecorder(every_n_steps=1), notes])
    (recording,) = folder.rglob("rollouts")
    return notes, recording


class NoModel:
    """Fails if a teacher or an engine is loaded."""

    def __call__(self, *arguments, **settings):
        raise AssertionError("a model was loaded")


def recorded_data(*files, **settings):
    return make_data(rollouts=RecordedRollouts(list(files)), batch_size=4, **settings)


def offline(*files, **settings):
    return make_module(teachers={}, **settings), recorded_data(*files)


def test_the_first_step_is_that_of_the_recorded_run_and_no_other_model_is_loaded(run, tmp_path, monkeypatch):
    notes, recording = run
    monkeypatch.setattr(HFTeacher, "setup", NoModel())
    monkeypatch.setattr(HFEngine, "setup", NoModel())
    again, _ = fit(*offline(recording / "step_000000.safetensors"), tmp_path)
    assert len(again.weights) == 1
    for own, expected in zip(again.weights[0], notes.weights[0], strict=True):
        assert torch.equal(own, expected)
    shared = [name for name in notes.metrics[0] if not name.startswith("time/") and name in again.metrics[0]]
    assert "train/loss" in shared
    assert all(again.metrics[0][name] == notes.metrics[0][name] for name in shared if "tokens_per_s" not in name)
    assert again.metrics[0]["rollout/staleness"] == 0
    assert again.metrics[0]["rollout/recorded_gap"] < 1e-3


def loader(data, rank=0, ranks=1):
    data.load()
    made = RecordedLoader(data, data.recording)
    made.rank, made.ranks = rank, ranks
    return made


def test_epochs_are_seeded_permutations_that_a_resumed_run_continues(run):
    _, recording = run
    data = recorded_data(recording)
    whole = loader(data)
    batches = [batch for _ in range(3) for batch in whole]
    assert [batch.number for batch in batches] == list(range(6))
    epochs = [[int(g) for batch in batches[i : i + 2] for g in batch.groups[::2]] for i in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(batch.groups.tolist() == sorted(batch.groups.tolist()) for batch in batches)
    resumed = loader(data)
    resumed.load_state_dict({"position": 3})
    rest = [batch for _ in range(2) for batch in resumed]
    assert [batch.groups.tolist() for batch in rest] == [batch.groups.tolist() for batch in batches[3:]]
    parts = [next(iter(loader(data, rank, 2))) for rank in range(2)]
    assert [g for part in parts for g in part.groups.tolist()] == batches[0].groups.tolist()
    assert set(batches[0].recorded.versions.tolist()) <= {0, 1}


def test_rollouts_of_two_processes_hold_the_recorded_values(run):
    _, recording = run
    held = {path.name: read_scored(path) for path in recording.iterdir()}
    for rank in range(2):
        batch = next(iter(loader(recorded_data(recording), rank, 2)))
        for row, prompt in enumerate(batch.prompts):
            name, first = prompt.id.split(":")
            own = held[name].select([int(first) + int(row % 2)])
            length = int(own.spans[0])
            assert batch.tokens[row, :length].equal(own.tokens[0, :length])
            assert batch.recorded.values["teacher_logprobs"][row, :length].equal(own.teacher_logprobs[0, :length])
            assert batch.attention_mask[row].sum() == length
            assert prompt.tokens == tuple(own.tokens[0, : int(own.response_mask[0].int().argmax())].tolist())


def test_a_process_without_prompts_gets_an_empty_batch(run):
    _, recording = run
    parts = [next(iter(loader(recorded_data(recording), rank, 5))) for rank in range(5)]
    assert [len(part.prompts) for part in parts] == [2, 2, 2, 2, 0]
    assert parts[4].to("cpu").select(torch.zeros(0, dtype=torch.int64)).recorded.versions.shape == (0,)


def found(module, data, tmp_path):
    trainer = make_trainer(tmp_path)
    module.trainer = data.trainer = trainer
    return [str(error) for error in problems(module.run_plan(data))]


def test_strategies_that_need_what_the_recording_lacks_are_refused_by_name(run, tmp_path):
    file = run[1] / "step_000000.safetensors"
    batch, poor = read_scored(file), tmp_path / "poor.safetensors"
    signals = {name: batch.signals[name] for name in ("teacher_logprobs",)}
    write_scored(poor, replace(batch, signals=signals), "tiny/student")
    cases = {
        "model.objective: 'GeneralizedJSD': its divergence needs the teacher's distributions": (
            file,
            {"objective": GeneralizedJSD()},
        ),
        "model.objective: 'GroupRewardReverseKL': it reads rewards, which": (
            file,
            {"objective": GroupRewardReverseKL()},
        ),
        f"model.token_weighter: 'EntropyWeighter': it reads teacher_entropy, which {poor} does not hold": (poor, {}),
        f"importance weights need the log-probabilities of the sampler, which {poor} does not hold": (poor, {}),
        "model.extra_signals: 'topk_overlap': it needs the teacher's distributions": (
            file,
            {"extra_signals": {"topk_overlap"}},
        ),
    }
    for message, (path, settings) in cases.items():
        assert any(message in text for text in found(*offline(path, **settings), tmp_path)), message
    module, data = make_module(), recorded_data(file)
    assert any("so no teacher is loaded. Set model.teachers {}" in text for text in found(module, data, tmp_path))
    assert found(*offline(file), tmp_path) == []


class Version(Callback):
    """Notes the version of the engine's weights at the end."""

    def on_fit_end(self, trainer, pl_module):
        self.found = pl_module.data.engine.policy_version


def test_an_engine_for_validation_has_the_weights_of_the_student_at_the_end(run, tmp_path):
    version = Version()
    data = recorded_data(run[1] / "step_000000.safetensors", num_validation=1)
    fit(make_module(teachers={}), data, tmp_path, callbacks=[version], limit_val_batches=0)
    assert version.found == 1


def test_responses_without_a_sampler_train_without_importance_weights(run, tmp_path):
    batch, file = read_scored(run[1] / "step_000000.safetensors"), tmp_path / "foreign.safetensors"
    write_scored(file, replace(batch, signals={"teacher_logprobs": batch.teacher_logprobs}))
    settings = {"token_weighter": UniformWeighter(), "trajectory_filter": KeepAll(), "importance_cap": None}
    notes, _ = fit(*offline(file, **settings), tmp_path)
    assert notes.metrics[0]["train/grad_norm"] > 0
    assert "rollout/recorded_gap" not in notes.metrics[0]


def test_recordings_of_another_student_are_refused(run, tmp_path):
    batch, tokenizer = read_scored(run[1] / "step_000000.safetensors"), load_tokenizer("tiny/student", "x")
    good, beyond, early = vocabulary_digest(tokenizer), batch.tokens.clone(), batch.response_mask.clone()
    beyond[1, 0], early[2] = 10**6, False
    cases = {
        "those of another student (./gone), with another vocabulary": (batch, "./gone", "0" * 32),
        "another student (./gone)": (batch, "./gone", None),
        "trajectory 1 has a token id beyond the student's vocabulary": (replace(batch, tokens=beyond), None, good),
        "trajectory 2 has no prompt token, or no response token": (replace(batch, response_mask=early), None, good),
    }
    for message, case in cases.items():
        file = tmp_path / "case.safetensors"
        write_scored(file, *case)
        with pytest.raises(UserError) as error:
            RecordedRollouts([file]).load("tiny/student", tokenizer)
        assert message in str(error.value)


def test_files_that_do_not_belong_together_are_refused(run, tmp_path):
    first, tokenizer = run[1] / "step_000000.safetensors", load_tokenizer("tiny/student", "x")
    write_scored(tmp_path / "other.safetensors", replace(read_scored(first), sampling=Sampling(0.5)))
    with pytest.raises(UserError, match="it was sampled with Sampling"):
        RecordedRollouts([first, tmp_path]).load("tiny/student", tokenizer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        RecordedRollouts([tmp_path / "empty"]).load("tiny/student", tokenizer)
    with pytest.raises(ValueError, match="files must name at least one"):
        RecordedRollouts([])

"""Background rollouts: as old as their number says, never more, in the same order, and exact after a resume."""

import os
import signal
import threading
import time
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace

import pytest
import torch
from helpers.fakes import ScriptedEngine, rollouts_of, scored_batch
from helpers.processes import Run
from helpers.resume import EVERY_STEP, assert_same, step_of
from helpers.resume_sharded import Pair
from helpers.resume_sharded import step_of as step_of_pair
from helpers.training import TEACHERS, Notes, before_each_step, fit, make_data, make_module, make_trainer, sgd
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fireopd.callbacks import RunCheckpoint
from fireopd.cli.parser import explain_error
from fireopd.engines import HFEngine, VLLMEngine
from fireopd.errors import UserError
from fireopd.filters import KeepAll
from fireopd.training import checkpoint_files
from fireopd.training.background_rollout import (
    RolloutQueue,
    largest_staleness,
    next_block,
    rollout_from_state,
    rollout_state,
)
from fireopd.training.module import FiReOPDModule
from fireopd.training.recorded_loader import current_rollouts
from fireopd.training.recordings import read_scored, write_scored
from fireopd.training.run_checks import check_overlap, check_staleness
from fireopd.types import ScoredBatch
from fireopd.weighters import TokenWeighter

OVERLAP = "--data.overlap=1"


def standing_still(parameters):
    return torch.optim.SGD(parameters, lr=0.0)


def values(notes, name):
    return [metrics[name] for metrics in notes.metrics]


@pytest.mark.parametrize(("overlap", "expected"), [(0, [0, 0, 0, 0]), (1, [0, 1, 1, 1]), (2, [0, 1, 2, 2, 3])])
def test_batches_are_as_old_as_their_overlap_says(tmp_path, overlap, expected):
    notes, _ = fit(make_module(), make_data(8 * len(expected), overlap=overlap), tmp_path)
    assert values(notes, "rollout/staleness") == expected
    assert max(expected) <= largest_staleness(overlap, 1)
    gaps = values(notes, "rollout/sampler_gap")
    assert gaps[0] < 1e-4
    assert all((gap > 1e-3) is (overlap > 0) for gap in gaps[1:]), "an older student is another one"


def test_blocks_cover_an_epoch_without_gaps_and_start_when_the_one_before_is_taken():
    for overlap, batches in [(1, 5), (2, 8), (3, 3), (4, 11)]:
        known, oldest = {0}, 0
        for place in range(batches):
            assert place in known
            block = next_block(place, batches, overlap)
            assert not known & set(block)
            known |= set(block)
            oldest = max([oldest, *(other - place for other in block)])
        assert known == set(range(batches))
        assert oldest <= largest_staleness(overlap, 1) == 2 * overlap - 1
    assert not any(next_block(place, 9, 0) for place in range(9))


def test_with_several_updates_a_batch_is_as_old_as_the_batch_before_has_updates(tmp_path):
    module = make_module(mini_batches=2, epochs=2, trajectory_filter=KeepAll())
    notes, _ = fit(module, make_data(24, overlap=1), tmp_path)
    assert values(notes, "rollout/staleness") == [0, 4, 4]


def test_where_the_student_stands_still_nothing_changes(tmp_path):
    notes = [
        fit(make_module(optimizer=standing_still), make_data(32, overlap=overlap, num_validation=2), tmp_path)[0]
        for overlap in (0, 1)
    ]
    assert len(notes[0].metrics) == 4
    for one, other in zip(notes[0].metrics, notes[1].metrics, strict=True):
        assert one.keys() == other.keys()
        same = {name for name in one if not name.startswith("time/")} - {"rollout/staleness", "train/tokens_per_s"}
        assert len(same) > 15
        for name in same:
            assert one[name] == other[name], name


def test_the_engine_takes_no_weights_while_it_samples(tmp_path):
    stepped = threading.Event()

    class Learnt(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            stepped.set()

    class Slow(ScriptedEngine):
        def generate(self, prompts, seeds):
            answers = super().generate(prompts, seeds)
            if threading.current_thread() is not threading.main_thread():
                assert stepped.wait(600), "the concurrent step is complete"
                stepped.clear()
                time.sleep(0.1)
            self.events.append("done")
            return answers

    data = make_data(24, engine=Slow(), overlap=1)
    fit(make_module(trajectory_filter=KeepAll()), data, tmp_path, callbacks=[Learnt()])
    expected = ["setup tiny/student", "load -2", "load 0", "generate 0", "done", "generate 0", "done", "load 1"]
    assert data.engine.events == [*expected, "generate 1", "done", "load 3"]


@dataclass
class Meeting(HFEngine):
    """Samples its second batch only once a training step is under way, and never twice at once."""

    training: threading.Event = field(default_factory=threading.Event)
    rollouts: int = 0
    busy: bool = False

    def generate(self, prompts, seeds):
        assert not self.busy
        self.busy, self.rollouts = True, self.rollouts + 1
        assert self.rollouts != 2 or self.training.wait(30)
        answers = super().generate(prompts, seeds)
        self.busy = False
        return answers


class Announcing(FiReOPDModule):
    def score(self, rollouts, watch):
        self.data.engine.training.set()
        return super().score(rollouts, watch)


def test_training_and_rollout_meet_and_validation_waits(tmp_path):
    data = make_data(32, engine=Meeting(max_response_length=24), overlap=1, num_validation=4)
    fit(Announcing(TEACHERS, optimizer=sgd), data, tmp_path, val_check_interval=1)
    assert data.engine.rollouts == 4 + 4
    assert data.engine.training.is_set()


def test_a_batch_that_is_older_is_refused(tmp_path):
    class Forgetful(HFEngine):
        def generate(self, prompts, seeds):
            self.policy_version = 0
            return super().generate(prompts, seeds)

    data = make_data(32, engine=Forgetful(max_response_length=16, max_probe_gap=10.0), overlap=1)
    with pytest.raises(RuntimeError, match="stale rollouts: sampled by version 0 of the student, .* at version 2"):
        fit(make_module(), data, tmp_path)


def resumed(tmp_path, overlap=2):
    notes = Notes()
    (last,) = tmp_path.rglob("last.ckpt")
    module, data = make_module(), make_data(40, overlap=overlap)
    trainer = make_trainer(tmp_path, callbacks=[notes, RunCheckpoint()], enable_checkpointing=True)
    trainer.fit(module, data, ckpt_path=last, weights_only=True)
    return module, notes


def assert_resumes(tmp_path, whole):
    module, notes = resumed(tmp_path)
    assert module.policy_version == 5
    for one, other in zip(whole.weights[-1], notes.weights[-1], strict=True):
        assert torch.equal(one, other)
    assert values(notes, "train/loss") == values(whole, "train/loss")[-len(notes.metrics) :]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    notes, _ = fit(make_module(), make_data(40, overlap=2), tmp_path_factory.mktemp("whole"))
    return notes


class Stopped(FiReOPDModule):
    """Gets a signal in its third step, while models read."""

    def score(self, *arguments):
        if self.place == "score":
            self.stop()
        return super().score(*arguments)

    def stop(self):
        if self.policy_version == 2:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("place", ["score", "update"])
@pytest.mark.parametrize(("number", "stop"), [(signal.SIGINT, SystemExit), (signal.SIGTERM, SIGTERMException)])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, monkeypatch, whole, place, number, stop):
    settings = {"trajectory_filter": make_module().method.trajectory_filter}
    module = Stopped(TEACHERS, optimizer=sgd, token_weighter=make_module().method.token_weighter, **settings)
    module.place, module.number = place, number
    with monkeypatch.context() as patch:
        if place == "update":
            before_each_step(patch, Stopped.stop)
        with pytest.raises(stop):
            fit(module, make_data(40, overlap=2), tmp_path, callbacks=[RunCheckpoint()], enable_checkpointing=True)
    (last,) = tmp_path.rglob("last.ckpt")
    loader = torch.load(last, weights_only=True)["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert loader["position"] == {"score": 2, "update": 3}[place]
    versions = [state["policy_version"] for state in loader["pending"][0]]
    assert versions == {"score": [0, 1, 1], "update": [1, 1]}[place], "the current batch, and the next two"
    assert_resumes(tmp_path, whole)


def test_an_error_of_the_engine_is_raised_when_its_batch_is_asked_for(tmp_path):
    class Failing(HFEngine):
        def generate(self, prompts, seeds):
            if self.policy_version == 2:
                assert threading.current_thread() is not threading.main_thread()
                raise ConnectionError("gone")
            return super().generate(prompts, seeds)

    module, data = make_module(), make_data(40, engine=Failing(max_response_length=24), overlap=1)
    with pytest.raises(ConnectionError, match="gone"):
        fit(module, data, tmp_path, callbacks=[RunCheckpoint()], enable_checkpointing=True)
    assert module.policy_version == 3, "the step during which it failed is complete"
    (last,) = tmp_path.rglob("last.ckpt")
    loader = torch.load(last, weights_only=True)["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert loader == {"position": 3, "pending": [[]]}
    module, notes = resumed(tmp_path, overlap=1)
    assert module.policy_version == 5
    assert values(notes, "rollout/staleness") == [0, 1], "by the student as it is: the older one is gone"


def test_rewards_are_given_in_the_main_thread_and_reach_strategies(tmp_path):
    threads = []

    class RightOnly(TokenWeighter):
        requires = frozenset({"rewards"})

        def __call__(self, batch):
            return batch.rewards[:, None].expand(batch.tokens.shape)

    class Verifier(type(make_data().source.verifier)):
        def __call__(self, prompt, response):
            threads.append(threading.current_thread())
            return super().__call__(prompt, response)

    data = make_data(24, overlap=1)
    object.__setattr__(data.source, "verifier", Verifier())
    fit(make_module(token_weighter=RightOnly(), trajectory_filter=KeepAll()), data, tmp_path)
    assert len(threads) == 24
    assert set(threads) == {threading.main_thread()}


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    reference = Run(tmp_path / "whole", *EVERY_STEP, OVERLAP)
    assert reference.wait() == 0, reference.said
    run = Run(tmp_path / "broken", *EVERY_STEP, OVERLAP)
    assert run.until(lambda: any(step_of(path) >= 4 for path in run.checkpoints()))
    run.send(signal.SIGKILL)
    again = Run(tmp_path / "broken", *EVERY_STEP, OVERLAP, "--ckpt_path=last")
    assert again.wait() == 0, again.said
    assert_same(again, reference)


def test_two_processes_resume_to_the_same_student(tmp_path):
    four_steps = [OVERLAP, "--data.prompts.num_training=28"]
    reference = Pair(tmp_path / "whole", *four_steps)
    assert reference.wait() == 0, reference.said
    stopped = Pair(tmp_path / "broken", *four_steps)
    stopped.until_step(1)
    stopped.send(signal.SIGTERM)
    assert stopped.wait() == 128 + signal.SIGTERM, stopped.said
    assert 1 <= step_of_pair(tmp_path / "broken") < 4
    rest = Pair(tmp_path / "broken", *four_steps, "--ckpt_path=last")
    assert rest.wait() == 0, rest.said
    one, other = (
        checkpoint_files.read_student(checkpoint_files.last_checkpoint(tmp_path / name))[1]
        for name in ("whole", "broken")
    )
    for name, expected in one.items():
        torch.testing.assert_close(other[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("engine", "cap", "message"),
    [
        (VLLMEngine(sleep=True), 5.0, "with data.engine.sleep, engine and trainer"),
        (VLLMEngine(tensor_parallel_size=2), 5.0, "run collectives in two threads at once"),
        (HFEngine(), None, "no importance weights correct for it"),
    ],
)
def test_what_cannot_overlap_is_refused(engine, cap, message):
    check_overlap(0, engine, cap)
    with pytest.raises(UserError, match=f"data.overlap: 2: .*{message}"):
        check_overlap(2, engine, cap)
    check_overlap(2, HFEngine(), 5.0)


def test_a_rollout_comes_back_from_a_checkpoint_on_its_own_prompts_alone(tmp_path):
    data = make_data(16, engine=ScriptedEngine(), responses_per_prompt=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    torch.save(rollout_state(batch), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    again = rollout_from_state(state, batch.prompts[::2], 0)
    for f in fields(batch):
        one, other = getattr(again, f.name), getattr(batch, f.name)
        assert torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other, f.name
    assert rollout_from_state(state, batch.prompts[:-2:2], 0) is None
    assert rollout_from_state(state, batch.prompts[::-2], 0) is None


def test_a_run_that_is_stopped_before_its_first_step_loses_no_rollout():
    data = make_data(16, engine=ScriptedEngine(), overlap=1)
    data.setup("fit")
    first, second = data.train_dataloader(), data.train_dataloader()
    batch = next(iter(first))
    kept = {"position": 0, "pending": [[rollout_state(batch)]]}
    second.load_state_dict(kept)
    assert second.state_dict() == kept
    again = next(iter(second))
    assert again.tokens is kept["pending"][0][0]["tokens"]
    assert second.state_dict()["pending"][0][0]["tokens"] is again.tokens, "no step has learned from it"
    second.mark_learned(again.number)
    assert second.state_dict()["pending"][0][0]["tokens"] is not again.tokens, "the next one, sampled in the background"


def test_batches_are_taken_by_number_and_a_rollout_of_the_present_weights_is_not_kept():
    queue = RolloutQueue()
    assert queue.take(0) is None
    batches = [SimpleNamespace(number=number) for number in (3, 4)]
    queue.start(range(3, 5), 2, lambda: batches)
    assert queue.knows(4)
    assert not queue.knows(5)
    assert queue.pending(3, learned=2) == [], "a resumed run samples the same batches"
    assert queue.pending(3, learned=3) == batches
    assert queue.take(2) is None
    assert queue.take(3)[0] is batches[0]
    assert queue.pending(4, learned=3) == batches[1:]
    queue.discard()
    assert queue.take(4) is None


def failing():
    raise ConnectionError("gone")


def test_a_failed_rollout_leaves_the_batches_before_it():
    queue = RolloutQueue()
    queue.start(range(1, 2), 0, lambda: [SimpleNamespace(number=1)])
    queue.pending(1, learned=1)
    queue.start(range(2, 4), 1, failing)
    assert [batch.number for batch in queue.pending(1, learned=2)] == [1]
    assert queue.take(1)[0].number == 1
    with pytest.raises(ConnectionError, match="gone"):
        queue.take(2)


def test_rollouts_of_earlier_versions_are_read():
    data = make_data(16, engine=ScriptedEngine(), overlap=1)
    data.setup("fit")
    loader = data.train_dataloader()
    batch = next(iter(loader))
    loader.load_state_dict({"position": 1, "next": [rollout_state(batch)]})
    assert loader.state_dict()["pending"][0][0]["tokens"] is batch.tokens
    loader.load_state_dict({"position": 1, "next": [None]})
    assert loader.restored == {}


def test_staleness_is_recorded_for_each_row(tmp_path):
    batch = scored_batch()
    rollouts, mean = current_rollouts(replace(rollouts_of(batch), policy_version=3), 5, allowed=2)
    assert mean == 2
    assert rollouts.staleness.tolist() == [2] * len(batch.teachers)
    scored = ScoredBatch.of(rollouts, batch.signals)
    assert (scored.policy_version, scored.student_version) == (3, 5), "recordings of one rollout have different names"
    write_scored(tmp_path / "batch", scored)
    assert torch.equal(read_scored(tmp_path / "batch").staleness, rollouts.staleness)
    assert scored.select([1, 0]).staleness.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="stale rollouts: sampled by version 3 of the student, .* at version 6"):
        current_rollouts(replace(rollouts_of(batch), policy_version=3), 6, allowed=2)


def test_a_switch_of_earlier_versions_gets_a_clear_message():
    message = "Parser key \"data.overlap\": Expected a <class 'int'>. Got value: True"
    said = explain_error(message, [])
    assert said == "data.overlap: 'True': not of the type int. Give a number: 0 for false, 1 for true."


def test_what_is_older_than_allowed_is_refused_before_the_run():
    data = make_data(16, engine=ScriptedEngine(), overlap=2, max_staleness=5)
    plan = SimpleNamespace(overlap=2, max_staleness=5)
    check_staleness(plan, 1)
    with pytest.raises(UserError, match=r"data.max_staleness: 5: with data.overlap 2 and 2 .* some are 6 steps old"):
        check_staleness(plan, 2)
    assert data.allowed_staleness(1) == 3, "no more than expected, so that an engine with old weights is found"
    assert data.allowed_staleness(4) == 5
    with pytest.raises(ValueError, match="overlap must be at least 0"):
        make_data(16, overlap=-1)

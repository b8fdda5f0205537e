"""Teacher on servers: scores at their places, spread, faults, exclusion, overlap with rollouts."""

import json
import pickle
import threading
from dataclasses import replace

import pytest
import torch
from helpers.fake_server import FakeTeacherServer
from helpers.fakes import ScriptedEngine, free_port

from fireopd.engines.rollout import collate, roll_out
from fireopd.engines.vllm import bounded_http
from fireopd.engines.vllm.teacher_card import TeacherCard
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer
from fireopd.teachers import Teacher, VLLMTeacher, deduplicate, score_by_teachers
from fireopd.teachers.vocabulary import MISSING_TOKEN_LOGPROB
from fireopd.training.stopwatch import Stopwatch
from fireopd.types import Prompt, Response, Sampling, TokenScores

CPU = torch.device("cpu")
CARD = json.loads(TeacherCard.of_model("tiny/math", "x").as_json())
CHAT = [{"role": "user", "content": "2+3"}]


@pytest.fixture
def served():
    """Return a function that starts fake servers and returns a teacher that is connected to them."""
    started, teachers = [], []

    def make(*fakes, setup=True, **settings):
        started.extend(fakes)
        teachers.append(VLLMTeacher("tiny/math", servers=[fake.url for fake in fakes], **settings))
        if setup:
            teachers[-1].setup("model.teachers.math", CPU)
        for fake in fakes:
            fake.requests.clear()  # of the probe
            fake.fault = fake.later
        return teachers[-1]

    yield make
    for fake in started:
        fake.scoring.set()
    for teacher in teachers:
        teacher.close()
    for fake in started:
        fake.stop()


def fake(fault=None, **changes):
    after = changes.pop("after", 0)
    server = FakeTeacherServer(CARD | changes, None, after)
    server.later = fault
    return server


def prompt(row, content=""):
    return Prompt((10 + row % 7, 6, 9), "math", "math", None, f"p{row}", content)


def rollouts(rows=12, temperature=0.5, content="", longest=5):
    lengths = [1 + row % longest for row in range(rows)]
    responses = [response(20 + (row + i) % 20 for i in range(length)) for row, length in enumerate(lengths)]
    prompts = [prompt(row, content) for row in range(rows)]
    return collate(prompts, responses, range(rows), Sampling(temperature), 0)


def response(tokens):
    tokens = tuple(tokens)
    return Response(tokens, (-1.0,) * len(tokens), True)


def is_right(scores, batch):
    expected = torch.where(batch.response_mask, batch.tokens / 64, 0.0)
    return torch.equal(scores.logprobs, -expected) and torch.equal(scores.entropy, expected)


def test_scores_are_at_their_places_and_requests_are_spread(served):
    fakes = fake(), fake()
    teacher, batch = served(*fakes, concurrency=2), rollouts(40)
    assert is_right(teacher.score(batch, entropy=True), batch)
    assert teacher.score(batch, entropy=False).entropy is None
    assert not teacher.requests.begun
    assert all(len(each.asked) > 5 for each in fakes)
    path, body = fakes[0].requests[0]
    assert path == "/fireopd/score"
    assert (body["first"], body["temperature"]) == (3, 0.5)
    empty = rollouts(2)
    empty.response_mask[0] = False
    assert is_right(teacher.score(empty, entropy=True), empty)


def test_a_context_precedes_the_prompt_and_leaves_the_scores_aligned(served):
    server = fake()
    teacher, batch = served(server, context=[{"role": "user", "content": "7+1"}]), rollouts(6, content=CHAT)
    assert is_right(teacher.score(batch, entropy=True), batch)
    longer = teacher.prompt_tokens(batch.prompts[0])
    assert len(longer) > len(CHAT[0]["content"])
    assert all(tuple(tokens[: len(longer)]) == longer for tokens in server.asked)


def test_tokens_that_only_the_student_has(served):
    teacher, batch = served(fake()), rollouts(3)
    batch.tokens[0, 3] = 60
    scores = teacher.score(batch, entropy=True)
    assert scores.logprobs[0, 3] == MISSING_TOKEN_LOGPROB
    assert scores.entropy[0, 3] == 47 / 64


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("die", "Error"),
        ("hang", "timed out after"),
        ("500", "500 for /fireopd/score"),
        ("400", "rejects a request that {good} accepts (400 for /fireopd/score"),
        ("404", "is no server of fireopd serve"),
        ("few", "bytes of scores for"),
        ("none", "returned 0 bytes of scores for"),
        ("nan", "the log-probability nan is positive or not finite"),
        ("positive", "the log-probability 0.25 is positive or not finite"),
        ("entropy", "the entropy 9 is not between 0 and log(48)"),
        ("negative entropy", "the entropy -0.5 is not between"),
    ],
)
def test_the_requests_of_a_failed_server_go_to_the_others(served, fault, reason, caplog, monkeypatch):
    monkeypatch.setattr(bounded_http, "BUSY_DELAYS", (0.0,))
    bad, good = fake(fault, after=2), fake()
    teacher = served(bad, good, concurrency=2, timeout=3.0 if fault == "hang" else 20.0)
    batch = rollouts(20)
    assert is_right(teacher.score(batch, entropy=True), batch)
    warnings = [record.message for record in caplog.records if "is excluded until a later batch" in record.message]
    assert len(warnings) == 1
    assert bad.url in warnings[0]
    assert reason.format(good=good.url) in warnings[0]


def test_a_failed_server_returns_after_pauses_that_double(served):
    bad, good = fake("nan"), fake()
    teacher, tries = served(bad, good), []
    for _ in range(9):
        before = len(bad.asked)
        assert is_right(teacher.score(rollouts(8), entropy=True), rollouts(8))
        tries.append(len(bad.asked) > before)
    assert [place for place, tried in enumerate(tries) if tried] == [0, 1, 3, 7]


def test_a_restarted_server_gets_requests_again(served):
    one, other = fake(), fake()
    teacher = served(one, other)
    one.stop()
    assert is_right(teacher.score(rollouts(), entropy=True), rollouts())
    back = FakeTeacherServer(CARD, port=one.port)
    teacher.score(rollouts(), entropy=True)
    assert back.asked
    back.stop()


def test_the_error_without_servers_lists_all_failures(served):
    fakes = fake("die", after=3), fake("500", after=3)
    teacher = served(*fakes, concurrency=2)
    with pytest.raises(
        UserError, match=r"model.teachers.math.servers.*no server is left .*500 for.*fireopd serve"
    ) as e:
        teacher.score(rollouts(40), entropy=True)
    assert all(each.url in str(e.value) for each in fakes)


def test_a_trajectory_that_all_servers_reject_is_reported(served):
    teacher = served(fake("400"), fake("400"))
    with pytest.raises(UserError, match=r"rejects a trajectory \(400.*--max-model-len"):
        teacher.score(rollouts(1), entropy=True)
    assert not teacher.requests.pool.excluded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "tiny/code"}, "it serves 'tiny/code' instead of 'tiny/math'"),
        ({"architecture": "LlamaForCausalLM"}, "its model is a LlamaForCausalLM"),
        ({"vocabulary": 64}, "its model has 64 outputs, expected 48"),
        ({"tokenizer": "0"}, "its tokenizer differs from that of 'tiny/math'"),
        ({"vocabulary": "48"}, "does not describe its model"),
        ({"context": True}, "as 'context'"),
    ],
)
def test_a_server_of_another_model_is_refused(served, changes, message):
    server = fake()
    server.answers["/fireopd/teacher"] |= changes
    with pytest.raises(UserError, match=f"model.teachers.math.servers: '{server.url}'.*{message}"):
        served(server, setup=False).check("model.teachers.math", "tiny/student", [], 8)


def test_checks_before_the_run(served):
    server = fake(model="/elsewhere/math")  # the same name in another folder
    teacher = served(server, setup=False)
    teacher.check("t", "tiny/student", [prompt(0)], 8)
    with pytest.raises(UserError, match="t: 'p0': 3 prompt tokens and a response of up to 254 do not fit"):
        teacher.check("t", "tiny/student", [prompt(0)], 254)
    with pytest.raises(UserError, match="t: 'VLLMTeacher': it only scores sampled tokens"):
        teacher.check_distributions("t", "tiny/student")
    gone = VLLMTeacher("tiny/math", servers=[f"http://127.0.0.1:{free_port()}"])
    with pytest.raises(UserError, match=r"t.servers: .*Start it: fireopd serve tiny/math --teacher --port \d+"):
        gone.check("t", "tiny/student", [], 8)
    assert teacher.memory(1) == {}


def test_servers_with_other_weights_are_refused(served):
    one, other = fake(), fake()
    other.score = lambda body: bytes(8 * (len(body["token_ids"]) - body["first"]))
    with pytest.raises(UserError, match="its log-probabilities differ from those of"):
        served(one, other)


@pytest.mark.parametrize("settings", [{"servers": []}, {"concurrency": 0}, {"timeout": 0.0}, {"servers": ["h:80"]}])
def test_settings_have_a_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        VLLMTeacher("tiny/math", **settings)


class Local(Teacher):
    """Scores in this process, after a condition."""

    def __init__(self, condition):
        self.condition = condition

    def check(self, key, student, prompts, response_length):
        pass

    def setup(self, key, device, shard):
        pass

    def score(self, batch, *, entropy):
        assert self.condition()
        return TokenScores(torch.zeros_like(batch.sampling_logprobs))


def test_all_servers_are_asked_while_a_local_teacher_scores(served):
    one, other = fake(), fake()
    names = ["local", "one", "other"] * 4
    prompts = [replace(prompt(row), teacher=name) for row, name in enumerate(names)]
    batch = collate(prompts, [response((20 + row,)) for row in range(12)], range(12), Sampling(0.5), 0)
    waited = threading.Event()

    def both_asked():
        for _ in range(400):
            if one.asked and other.asked:
                return True
            waited.wait(0.05)
        return False

    teachers = {"local": Local(both_asked), "one": served(one), "other": served(other)}
    scores, _ = score_by_teachers(teachers, batch, Stopwatch(), entropy=False, distributions=False)
    index = [row for row, name in enumerate(names) if name != "local"]
    assert torch.equal(scores.logprobs[index], torch.where(batch.response_mask, -batch.tokens / 64, 0.0)[index])


def test_responses_are_scored_during_the_rollout(served):
    server, asked = fake(), []
    teacher = served(server)

    class OneByOne(ScriptedEngine):
        def generate(self, prompts, seeds):
            responses = super().generate(prompts, seeds)
            for row, response in enumerate(responses):
                self.announce(row, response)
            while len(server.asked) < 2:  # the requests arrive before the rollout ends
                threading.Event().wait(0.02)
            asked.append(len(server.asked))
            return responses

    rows = [prompt(0), prompt(1)]
    batch, _, _ = roll_out(OneByOne(), rows, responses=1, seed=1, step=0, vocabulary=48, finished=teacher.prefetch)
    assert asked == [2]
    assert is_right(teacher.score(batch, entropy=True), batch)
    assert len(server.asked) == 2, "no request is sent twice"


def test_a_teacher_can_be_sent_to_other_processes_before_it_connects():
    assert pickle.loads(pickle.dumps(VLLMTeacher("tiny/math"))) == VLLMTeacher("tiny/math")


def test_equal_settings_share_the_connections():
    shared = deduplicate({"a": VLLMTeacher("tiny/math"), "b": VLLMTeacher("tiny/math"), "c": VLLMTeacher("tiny/code")})
    assert shared["a"] is shared["b"]
    assert shared["a"] is not shared["c"]


def test_the_fingerprint_covers_the_vocabulary(tmp_path, monkeypatch):
    tokenizer = load_tokenizer("tiny/math", "x")
    tokenizer.add_tokens(["unknown"])
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr("fireopd.engines.vllm.teacher_card.load_tokenizer", lambda *_: tokenizer)
    assert TeacherCard.of_model("tiny/math", "x").tokenizer != CARD["tokenizer"]

"""Teacher that scores in the trainer's process and samples on servers."""

import pytest
import torch
from helpers.fake_server import SETTINGS, FakeServer
from helpers.training import make_data

from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.plans import TeacherPrefix
from fireopd.plans.rollout import Planning, roll_out_plan
from fireopd.teachers import HFTeacher
from fireopd.types import Source

CPU = torch.device("cpu")


@pytest.fixture
def serve():
    """Return a function that starts a fake server of a model."""
    started = []

    def start(name="tiny/math"):
        own = SETTINGS["model_config"] | {"served_model_name": name}
        started.append(FakeServer(settings=SETTINGS | {"model_config": own}))
        return started[-1]

    yield start
    for fake in started:
        fake.stop()


def test_a_prefix_comes_from_the_server_and_the_rest_from_the_student(serve):
    fake, data = serve(), make_data(8, engine=HFEngine(max_response_length=6))
    data.setup("fit")
    data.engine.setup("tiny/student", CPU)
    teacher = HFTeacher("tiny/math", sampling_servers=[fake.url])
    teacher.check_sampling("model.teachers.math", "tiny/student")
    teacher.setup("model.teachers.math", CPU)
    fake.requests.clear()
    own = teacher.sampler(data.engine, 48)
    planning, prompts = Planning(TeacherPrefix(4, teacher="math"), {"math": own}), data.training_prompts[:2]
    batch = roll_out_plan(planning, data.engine, prompts, responses=1, seed=1, step=0, vocabulary=48)
    teacher.close()
    [(_, body), _] = fake.requests
    assert sorted(fake.asked) == sorted(list(prompt.tokens) for prompt in prompts)
    assert (body["sampling_params"]["max_tokens"], body["sampling_params"]["temperature"]) == (4, 1.0)
    for row, prompt in enumerate(prompts):  # the server finishes within the prefix
        assert batch.tokens[row][batch.response_mask[row]].tolist() == [prompt.tokens[0], 7, 7, 1]
    assert torch.equal(batch.tokens_by(Source.TEACHER), batch.response_mask)


def test_unsuitable_servers_are_refused(serve):
    other, replaced = serve("tiny/code"), serve()
    replaced.version = "3"
    for fake, problem in (
        (other, "it serves 'tiny/code' instead of 'tiny/math'"),
        (replaced, "a trainer has replaced"),
    ):
        teacher = HFTeacher("tiny/math", sampling_servers=[fake.url])
        with pytest.raises(UserError, match=f"model.teachers.math.sampling_servers: .*{problem}"):
            teacher.check_sampling("model.teachers.math", "tiny/student")
    with pytest.raises(ValueError, match="sampling_servers must be addresses such as"):
        HFTeacher("tiny/math", sampling_servers=["nowhere"])

"""Callbacks of every run: rollouts and teachers are connected only if a teacher scores elsewhere and is read."""

from types import SimpleNamespace

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch

from fireopd.teachers import HFTeacher, MixtureTeacher, VLLMTeacher, prefetch_by_teachers
from fireopd.training.background_rollout import RolloutQueue
from fireopd.training.run_callbacks import TeacherRequests, run_callbacks


class Recorded(VLLMTeacher):
    """Records the rows that it could begin to score."""

    def __init__(self):
        super().__init__("tiny/math")
        self.rows, self.closed = [], False

    def prefetch(self, rollouts):
        self.rows += rollouts.teachers

    def close(self):
        self.closed = True


def module(*, teachers=None, requires=("teacher_logprobs",), distributions=False):
    data = SimpleNamespace(finished=None, queue=RolloutQueue(), interrupts=None)
    teachers = teachers or {"math": Recorded(), "code": HFTeacher("tiny/code")}
    return SimpleNamespace(
        data=data, teachers=teachers, requires=frozenset(requires), needs_distributions=distributions
    )


def test_responses_go_to_the_teacher_of_their_row():
    made = module()
    (requests,) = (each for each in run_callbacks(made.data) if isinstance(each, TeacherRequests))
    requests.on_fit_start(None, made)
    batch = rollouts_of(scored_batch(6))
    for row in range(6):
        made.data.finished(batch.select(torch.tensor([row])))
    assert made.teachers["math"].rows == ["math"] * 3
    requests.teardown(None, made, "fit")
    assert made.teachers["math"].closed
    assert made.data.finished is None


@pytest.mark.parametrize(
    "settings",
    [{"teachers": {"math": HFTeacher("tiny/math")}}, {"requires": ("student_logprobs",)}, {"distributions": True}],
)
def test_other_runs_are_not_connected(settings):
    made = module(**settings)
    TeacherRequests().on_fit_start(None, made)
    assert made.data.finished is None


def test_the_parts_of_a_mixture_get_their_rows():
    one, other = Recorded(), Recorded()
    tasks = {"math": {"one": 1.0}, "code": {"one": 1.0, "other": 1.0}}
    mixture = MixtureTeacher({"one": one, "other": other}, task_weights=tasks)
    mixture.prefetch(rollouts_of(scored_batch(6)))
    assert (len(one.rows), len(other.rows)) == (6, 3)
    mixture.close()
    assert one.closed
    assert other.closed


def test_a_teacher_that_fails_during_the_rollout_is_named():
    class Failing(Recorded):
        def prefetch(self, rollouts):
            raise RuntimeError

    with pytest.raises(RuntimeError) as failure:
        prefetch_by_teachers({"math": Failing()}, rollouts_of(scored_batch(6)))
    assert failure.value.__notes__ == ["fireopd: model.teachers.math: Failing begins to score 3 trajectories."]

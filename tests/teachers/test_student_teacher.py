"""The student as its own teacher: current weights, a moving average, initial weights."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.training import Notes, make_data, make_module, make_trainer

from fireopd.errors import UserError
from fireopd.models import LoRA, load_causal_lm
from fireopd.models.output_head import OutputHead
from fireopd.teachers import EMAStudentTeacher, HFTeacher, InitialStudentTeacher, StudentTeacher
from fireopd.training.gpu_cards import CARDS
from fireopd.training.memory_phases import checkpoint_bytes, largest, memory_phases
from fireopd.training.resume_checks import check_resume
from fireopd.training.run_checks import check_averages
from fireopd.training.run_warnings import run_warnings
from fireopd.training.step_seconds import step_seconds

DECAY = 0.75
CONTEXT = [{"role": "user", "content": "{question}"}, {"role": "assistant", "content": "{solution}"}]


class Outputs(Notes):
    """Notes also the batch of each step."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.batches.append(outputs["batch"])


def module_of(math, code, **settings):
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    return make_module(teachers={"math": math, "code": code}, optimizer=optimizer, **settings)


def run(module, folder, steps, ckpt_path=None):
    """Train up to a step, write the checkpoint `<step>.ckpt`, and return the notes."""
    notes = Outputs()
    trainer = make_trainer(folder, callbacks=[notes], max_steps=steps, max_epochs=-1)
    trainer.fit(module, make_data(24), ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt", weights_only=False)
    return notes


def mean_of(notes, parameters):
    """Return the moving average of the parameters after each step."""
    average = list(parameters)
    for values in notes.weights:
        own = values[: len(average)]
        average = [DECAY * old + (1 - DECAY) * new for old, new in zip(average, own, strict=True)]
    return average


def test_the_current_student_without_a_context_agrees_with_itself(tmp_path):
    (batch,) = run(module_of(StudentTeacher(), StudentTeacher(context=CONTEXT)), tmp_path, 1).batches
    rows = torch.tensor([name == "math" for name in batch.teachers])
    difference = (batch.teacher_logprobs - batch.student_logprobs).abs()
    assert difference[rows].max() < 1e-5
    assert difference[~rows].max() > 0.1, "it knows the solution"


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """Folder, module and notes of three steps with a moving average."""
    folder = tmp_path_factory.mktemp("averaged")
    module = module_of(EMAStudentTeacher(decay=DECAY), EMAStudentTeacher(CONTEXT, decay=DECAY))
    return folder, module, run(module, folder, 3)


def test_an_average_follows_the_student(averaged):
    _, module, notes = averaged
    initial = load_causal_lm("tiny/student", "x", "float32")
    (average,) = module.averages.values()
    assert module.teachers["math"].scorer is module.teachers["code"].scorer is average, "teachers share it"
    for own, expected in zip(average.parameters(), mean_of(notes, initial.parameters()), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-7)
        assert not own.requires_grad
    assert len(module.trained_parameters()) == len(list(initial.parameters()))


def test_an_average_resumes_with_the_same_bits(averaged, tmp_path):
    folder, whole, _ = averaged
    run(module_of(EMAStudentTeacher(decay=DECAY), EMAStudentTeacher(CONTEXT, decay=DECAY)), tmp_path, 1)
    resumed = module_of(EMAStudentTeacher(decay=DECAY), EMAStudentTeacher(CONTEXT, decay=DECAY))
    run(resumed, tmp_path, 3, ckpt_path=tmp_path / "1.ckpt")
    expected = whole.state_dict()
    assert sum(name.startswith("averages.0_75.") for name in expected) == len(expected) // 2
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())
    for other in (EMAStudentTeacher(decay=0.5), StudentTeacher()):
        changed = module_of(other, other)
        changed.resume_with_changes = True
        with pytest.raises(
            UserError, match="model.teachers: .* moving averages of the student with decay 0.75 in the checkpoint"
        ):
            check_resume(folder / "3.ckpt", changed)


def test_with_an_adapter_only_its_average_is_a_copy(tmp_path):
    module = module_of(InitialStudentTeacher(), EMAStudentTeacher(decay=DECAY), adapter=LoRA(rank=4))
    run(module, tmp_path, 2)
    initial, average = (module.teachers[name].scorer for name in ("math", "code"))
    assert initial.model is average.model is module.student.model, "no second copy of the model"
    held = {value.data_ptr(): value.nbytes for value in module.state_dict().values()}
    adapter = sum(parameter.nbytes for parameter in module.trained_parameters())
    assert sum(held.values()) == 2 * adapter
    before = [parameter.clone() for parameter in module.student.parameters()]
    rollouts = rollouts_of(scored_batch(4, 9))
    other = HFTeacher("tiny/student")
    other.setup("x", torch.device("cpu"))
    scores = [teacher.score(rollouts, entropy=True) for teacher in (*module.teachers.values(), other)]
    torch.testing.assert_close(scores[0].logprobs, scores[2].logprobs)
    assert (scores[1].logprobs - scores[0].logprobs).abs().max() > 1e-3
    assert all(torch.equal(old, new) for old, new in zip(before, module.student.parameters(), strict=True))


def test_distributions_stay_those_before_the_step(averaged):
    """Later mini-batches of a step are compared with the student before the first one."""
    _, module, _ = averaged
    teacher = StudentTeacher()
    teacher.attach(module.versions)
    _, distributions = teacher.score_with_distributions(rollouts_of(scored_batch(4, 9)), entropy=False)
    own = OutputHead.of(module.student.model).weight
    assert torch.equal(distributions.heads[0].weight, own)
    assert distributions.heads[0].weight.data_ptr() != own.data_ptr()


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay must be at least 0 and less than 1"):
        EMAStudentTeacher(decay=decay)


def test_an_average_in_half_precision_is_refused(averaged):
    _, module, _ = averaged
    plan = replace(module.run_plan(), dtype="bfloat16")
    with pytest.raises(UserError, match="model.teachers.math.decay: 0.75: small updates of an average of bfloat16"):
        check_averages(plan)
    check_averages(replace(plan, adapter=LoRA()))


def test_copies_and_contexts_count_in_the_memory(averaged):
    _, module, _ = averaged
    plan = module.run_plan()
    size = sum(parameter.nbytes for parameter in module.trained_parameters())
    parts = {part.name: part.size for part in largest(memory_phases(plan, 2**34)).parts}
    assert parts["teacher math: average 0.75 weights"] == size
    assert parts["teacher code"] == 0, "shared"
    math, code = (plan.longest_row(module.teachers[name]) for name in ("math", "code"))
    assert plan.data.longest_trajectory == max(math, plan.data.longest_trajectory) < code
    seconds = {part.name: part.seconds for part in step_seconds(plan, CARDS[0], 2**34, 8)}
    assert seconds["teacher code"] > seconds["teacher math"] > 0
    without = replace(plan, teachers={"math": StudentTeacher(), "code": StudentTeacher(CONTEXT)})
    assert checkpoint_bytes(plan) - checkpoint_bytes(without) == size
    assert any("the teacher math is the current student without a context" in text for text in run_warnings(without))

"""Confidence in the teachers: paired comparison with the student on the teachers' own prompts."""

from dataclasses import replace

import pytest
from helpers.training import make_data, make_module, make_trainer

from fireopd.analysis import teacher_confidence
from fireopd.analysis.teacher_confidence import Measured, TeacherConfidence, confidence_lines
from fireopd.cli.teacher_options import take_sample_option
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer
from fireopd.teachers import HFTeacher, MixtureTeacher, StudentTeacher
from fireopd.types import Response
from fireopd.verifiers import ExactMatch


def confidence(teacher, student, solutions=False):
    own, other = ({str(place): value for place, value in enumerate(values)} for values in (teacher, student))
    parts = [Measured({}, values) if solutions else Measured(values, {}) for values in (own, other)]
    return TeacherConfidence("math", *parts)


def test_only_an_interval_below_zero_is_a_warning():
    worse = confidence([0.0] * 20 + [1.0] * 4, [1.0] * 20 + [0.0] * 4)
    (warning,) = worse.warnings()
    assert warning.startswith("the teacher math is worse than the student on its own prompts, by their answers")
    assert "difference -0.667 [-0.9" in warning
    assert confidence([0.0, 0.0, 1.0, 1.0] * 4, [1.0, 0.0, 1.0, 0.0] * 4).warnings() == []
    assert confidence([0.0], [1.0]).warnings() == []  # a single prompt has no interval
    assert confidence([1.0] * 9, [0.0] * 9).warnings() == []
    assert "reference solutions" in confidence([-2.0, -2.1, -2.2] * 5, [-1.0] * 15, solutions=True).warnings()[0]
    assert "neither answers nor solutions" in TeacherConfidence("x", Measured({}, {}), Measured({}, {})).line()


class Answers(HFEngine):
    """Engine that knows the answers if it has the weights of the student or of the math teacher."""

    def setup(self, model, device):
        super().setup(model, device)
        self.knows = model in ("tiny/student", "tiny/math")

    def generate(self, prompts, seeds):
        tokenizer = load_tokenizer("tiny/student", "x")
        texts = [prompt.answer if self.knows else "?" for prompt in prompts]
        written = [tuple(tokenizer(text)["input_ids"]) for text in texts]
        return [Response(tokens, (-1.0,) * len(tokens), True) for tokens in written]


def test_each_teacher_is_compared_with_the_student_on_its_own_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_confidence, "HFEngine", Answers)
    teachers = {"math": HFTeacher("tiny/math"), "code": MixtureTeacher({"own": HFTeacher("tiny/code")})}
    module, data = make_module(teachers=teachers | {"self": StudentTeacher()}), make_data(num_training=16)
    data.source = replace(data.source, verifier=ExactMatch())
    module.trainer = data.trainer = make_trainer(tmp_path)
    lines = confidence_lines(module.run_plan(data), 6)
    assert lines[0].startswith(
        "teacher math: accuracy 1.000, of the student 1.000, difference 0.000 [0.000, 0.000] on 6"
    )
    assert lines[1].startswith("teacher code.teachers.own: accuracy 0.000, of the student 1.000")
    assert lines[2].startswith("warning: the teacher code.teachers.own is worse than the student on its own prompts")
    assert not any("warning: the teacher math" in line for line in lines)


def test_the_option_takes_a_number():
    assert take_sample_option(["--a=1", "--sample_teachers", "8", "b"]) == (8, ["--a=1", "b"])
    assert take_sample_option(["x"]) == (None, ["x"])
    for wrong in (["--sample_teachers=1"], ["--sample_teachers"], ["--sample_teachers=x"]):
        with pytest.raises(UserError, match="not a whole number of at least 2"):
            take_sample_option(wrong)
    with pytest.raises(UserError, match="--gpus plans for other hardware"):
        take_sample_option(["--gpus=8", "--sample_teachers=8"])

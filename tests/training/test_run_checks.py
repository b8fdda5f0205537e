"""Checks of a run: settings that training would refuse later, or answer with a traceback."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers.training import fit, make_data, make_module, sgd
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.optim import lr_scheduler

from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.filters import AllOf, MarginFilter, VerdictFilter
from fireopd.objectives import GroupRewardReverseKL
from fireopd.training.run_checks import problems
from fireopd.training.trainer_checks import check_folder
from fireopd.verifiers import ExactMatch, FinalAnswer, MathVerify, Verifier
from fireopd.weighters import AgreementWeighter, EntropyWeighter, ProductOf


def plan_of(tmp_path, *, data=None, trainer=None, **settings):
    module, data = make_module(**settings), make_data(**(data or {}))
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "default_root_dir": tmp_path}
    module.trainer = data.trainer = Trainer(**(quiet | {"max_epochs": 1} | (trainer or {})))
    data.setup("fit")
    return module.run_plan(data)


def found(plan):
    return [str(problem) for problem in problems(plan)]


def test_a_sound_run_has_no_problems(tmp_path):
    cosine = partial(lr_scheduler.CosineAnnealingLR, T_max=2)
    assert not found(plan_of(tmp_path / "new" / "runs", optimizer=torch.optim.AdamW, scheduler=cosine))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_clip_val": 1.0}, "trainer.gradient_clip_val: 1.0: .* Set model.gradient_clip instead"),
        (
            {"accumulate_grad_batches": 2},
            "trainer.accumulate_grad_batches: 2: .*model.mini_batches.*token_budget",
        ),
        (
            {"precision": "bf16-true"},
            "trainer.precision: 'bf16-true': .* Use bf16-mixed, or 32-true with FSDP2Strategy",
        ),
        ({"precision": "16-true"}, "trainer.precision: '16-true': .* Use bf16-mixed, or 32-true with FSDP2Strategy"),
        ({"precision": "64-true"}, "trainer.precision: '64-true': .* supports 32-true and bf16-mixed only"),
    ],
)
def test_settings_of_the_trainer_that_the_module_does_not_support(tmp_path, settings, message):
    (problem,) = problems(plan_of(tmp_path, trainer=settings))
    with pytest.raises(UserError, match=message):
        raise problem


def test_kernels_of_a_gpu_on_a_cpu(tmp_path):
    plan = plan_of(tmp_path, kernels="triton")
    plan = replace(plan, teachers={name: replace(teacher, kernels="triton") for name, teacher in plan.teachers.items()})
    keys = ["model.kernels", *(f"model.teachers.{name}.kernels" for name in plan.teachers)]
    for key, problem in zip(keys, found(plan), strict=True):
        assert problem == f"{key}: 'triton': the run computes on cpu. Set it to torch, or use a GPU."


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    (message,) = found(plan_of(file / "runs"))
    assert message.startswith(f"trainer.default_root_dir: '{file}/runs': {file} is a file. ")
    check_folder(str(tmp_path / "new"))
    check_folder("s3://bucket/runs")
    monkeypatch.setattr("fireopd.training.trainer_checks.os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path} is not writable"):
        check_folder(str(tmp_path / "new"))


def test_the_folder_of_a_run_is_not_that_of_its_logger(tmp_path):
    plan = plan_of(tmp_path / "runs", trainer={"logger": CSVLogger(tmp_path / "other")})
    assert plan.processes.folder == str(tmp_path / "runs")


def dividing_by_zero(optimizer):
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 - step))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": partial(torch.optim.AdamW, lr=-1.0)}, "model.optimizer: 'AdamW': Invalid learning rate: -1.0"),
        ({"optimizer": partial(torch.optim.AdamW, lr=torch.inf)}, "'AdamW': its learning rate is inf. Give a finite"),
        ({"optimizer": partial(torch.optim.SGD, lr=torch.nan)}, "'SGD': .*nan"),
        ({"optimizer": partial(torch.optim.AdamW, weight_decay=torch.inf)}, "'AdamW': its weight decay is inf"),
        (
            {"optimizer": partial(torch.optim.AdamW, betas=(0.9, 1.0))},
            "'AdamW': Invalid beta parameter at index 1: 1.0",
        ),
        ({"optimizer": torch.optim.LBFGS}, "model.optimizer: 'LBFGS': TypeError"),
        (
            {"scheduler": partial(lr_scheduler.CosineAnnealingLR, T_max=0)},
            "model.scheduler: 'CosineAnnealingLR': ZeroDivisionError",
        ),
        ({"scheduler": lr_scheduler.ReduceLROnPlateau}, "model.scheduler: 'ReduceLROnPlateau': TypeError: .*'metrics'"),
        ({"scheduler": partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=1)}, "'OneCycleLR': Tried to step 2 "),
        (
            {"scheduler": partial(lr_scheduler.ExponentialLR, gamma=torch.nan)},
            "'ExponentialLR': its learning rate is nan",
        ),
        ({"scheduler": dividing_by_zero}, "model.scheduler: 'dividing_by_zero': ZeroDivisionError"),
    ],
)
def test_optimizers_and_schedulers_that_fail_in_the_run(tmp_path, settings, message):
    (problem,) = problems(plan_of(tmp_path, **settings))
    with pytest.raises(UserError, match=message):
        raise problem


def test_the_check_of_the_optimizer_draws_no_random_number(tmp_path):
    plan = plan_of(tmp_path, optimizer=torch.optim.AdamW)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    problems(plan)
    assert torch.equal(torch.rand(3), expected)


def test_an_infinite_temperature(tmp_path):
    (message,) = found(plan_of(tmp_path, data={"engine": HFEngine(max_response_length=8, temperature=torch.inf)}))
    assert message.startswith("data.engine.temperature: inf: ")


def without_answers(plan, number):
    prompts = plan.data.training_prompts
    bare = [replace(prompt, answer=None) for prompt in prompts[:number]]
    return replace(plan, data=replace(plan.data, training_prompts=[*bare, *prompts[number:]]))


@pytest.mark.parametrize("verifier", [ExactMatch(), FinalAnswer(), MathVerify()])
def test_rewards_without_any_answer(tmp_path, verifier):
    plan = plan_of(tmp_path, trajectory_filter=VerdictFilter())
    plan = replace(plan, data=replace(plan.data, verifiers={"": verifier}))
    (message,) = found(without_answers(plan, 16))
    assert "no training prompt has an answer, so all rewards that VerdictFilter reads are 0" in message
    assert not found(without_answers(plan, 15))


def test_answers_are_not_required_without_rewards_or_by_other_verifiers(tmp_path):
    class Short(Verifier):
        def __call__(self, prompt, response):
            return float(len(response) < 10)

        def final_answer(self, response):
            return None

    assert not found(without_answers(plan_of(tmp_path), 16))
    plan = plan_of(tmp_path, trajectory_filter=VerdictFilter())
    assert not found(without_answers(replace(plan, data=replace(plan.data, verifiers={"": Short()})), 16))


@pytest.mark.parametrize(
    "method",
    [
        {"objective": GroupRewardReverseKL()},
        {"token_weighter": AgreementWeighter()},
        {"token_weighter": ProductOf([EntropyWeighter(), AgreementWeighter()])},
        {"trajectory_filter": AllOf([AllOf([MarginFilter(scope="group")])])},
    ],
)
def test_groups_of_one_response(tmp_path, method):
    (message,) = found(plan_of(tmp_path, **method))
    assert message.startswith("data.responses_per_prompt: 1: ")
    assert not found(plan_of(tmp_path, data={"responses_per_prompt": 2}, **method))
    assert not found(plan_of(tmp_path, trajectory_filter=MarginFilter(scope="batch")))


def test_fit_refuses_what_the_check_finds(tmp_path, monkeypatch):
    for place in ("training.student", "teachers.huggingface", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match="model.optimizer: 'SGD'"):
        fit(make_module(optimizer=partial(torch.optim.SGD, lr=-1.0)), make_data(8), tmp_path)


def test_all_problems_at_once(tmp_path):
    plan = plan_of(tmp_path, optimizer=partial(sgd), scheduler=lr_scheduler.ReduceLROnPlateau)
    plan = replace(plan, processes=replace(plan.processes, precision="64-true", gradient_clip_val=1.0))
    keys = [problem.key for problem in problems(plan)]
    assert keys == ["trainer.precision", "trainer.gradient_clip_val", "model.scheduler"]

"""The training step: what changes it and what does not, guards, counters, and that a student learns."""

from dataclasses import dataclass

import pytest
import torch
from helpers.fakes import ScriptedEngine
from helpers.training import TEACHERS, Notes, before_each_step, fit, make_data, make_module, make_trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from transformers import Qwen3Config, Qwen3ForCausalLM

from fireopd.callbacks import RunCheckpoint
from fireopd.engines import HFEngine
from fireopd.errors import UserError
from fireopd.filters import KeepAll, TeacherLikelihoodFilter
from fireopd.models.loading import load_tokenizer
from fireopd.objectives import EntropyGatedKL, ExtrapolatedReverseKL, GeneralizedJSD, Objective
from fireopd.prompts import TinyPrompts
from fireopd.teachers import HFTeacher, Teacher
from fireopd.training.data import RolloutDataModule
from fireopd.training.module import FiReOPDModule
from fireopd.weighters import EntropyWeighter, ProductOf, TeachabilityWeighter, TokenWeighter, UniformWeighter


@pytest.mark.parametrize(
    ("budget", "settings"),
    [
        (1, {}),
        (200, {}),
        (200, {"objective": EntropyGatedKL(0.1), "token_weighter": TeachabilityWeighter(0.5), "chunk_logits": 700}),
    ],
)
def test_the_token_budget_changes_neither_loss_nor_gradient(tmp_path, budget, settings):
    whole, _ = fit(make_module(token_budget=10**6, **(settings | {"chunk_logits": 10**6})), make_data(), tmp_path)
    cut, _ = fit(make_module(token_budget=budget, **settings), make_data(), tmp_path)
    assert len(whole.metrics) == 2
    for one, other in zip(whole.metrics, cut.metrics, strict=True):
        for name in ("train/loss", "train/grad_norm", "train/reverse_kl", "fire/keep_ratio"):
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
    for one, other in zip(whole.weights[-1], cut.weights[-1], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def test_neutral_fire_is_plain_opd(tmp_path):
    fire = make_module(trajectory_filter=TeacherLikelihoodFilter(0.0), token_weighter=EntropyWeighter(0.0, 0.0))
    plain = make_module(trajectory_filter=KeepAll(), token_weighter=UniformWeighter())
    one, _ = fit(fire, make_data(), tmp_path)
    other, _ = fit(plain, make_data(), tmp_path)
    for a, b in zip(one.weights[-1], other.weights[-1], strict=True):
        assert torch.equal(a, b)


def test_dropped_rows_are_not_computed(tmp_path, monkeypatch):
    seen = []

    def count(module):
        def note(student, arguments):
            if torch.is_grad_enabled():
                seen.append(len(arguments[0]))

        module.student.register_forward_pre_hook(note)

    before_each_step(monkeypatch, count)
    fit(make_module(trajectory_filter=TeacherLikelihoodFilter(0.5)), make_data(8), tmp_path)
    assert sum(seen) == 4


def test_several_updates_on_one_batch(tmp_path):
    module = make_module(mini_batches=3, epochs=2, trajectory_filter=KeepAll())
    notes, trainer = fit(module, make_data(8), tmp_path)
    assert module.policy_version == trainer.global_step == 6
    assert len(notes.metrics) == 1


def test_stale_rollouts_are_refused(tmp_path):
    class Forgetful(HFEngine):
        def load_weights(self, weights, policy_version):
            self.policy_version = min(policy_version, 0)

    data = make_data(engine=Forgetful(max_response_length=16, max_probe_gap=10.0))
    with pytest.raises(UserError, match=r"data.engine: .*: has policy_version 0 after load_weights\(..., 1\)"):
        fit(make_module(), data, tmp_path)


def test_the_engine_gets_every_tensor_after_each_step_and_before_the_next_rollout(tmp_path):
    module, data = make_module(trajectory_filter=KeepAll()), make_data(24, engine=ScriptedEngine())
    fit(module, data, tmp_path)
    expected = ["setup tiny/student", "load -2", "load 0", "generate 0", "load 1", "generate 1", "load 2", "generate 2"]
    assert data.engine.events == [*expected, "load 3"]
    assert module.student.model.state_dict().keys() - data.engine.loaded.keys() == {"lm_head.weight"}, (
        "tied: comes once"
    )


def test_teachers_are_frozen_and_in_no_optimizer_or_checkpoint(tmp_path):
    module = make_module()
    _, trainer = fit(module, make_data(8), tmp_path)
    before = {id(p) for teacher in module.teachers.values() for p in teacher.scorer.parameters()}
    module.train()
    assert all(not teacher.scorer.model.training for teacher in module.teachers.values())
    assert not before & {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert all(name.startswith("student.model.") for name in module.state_dict())
    assert not before & {id(p) for p in module.parameters()}


def test_only_declared_signals_are_computed(tmp_path):
    entropies = []

    class Watching(HFTeacher):
        def score(self, rollouts, *, entropy):
            entropies.append(entropy)
            return super().score(rollouts, entropy=entropy)

    teachers = {name: Watching(f"tiny/{name}") for name in ("math", "code")}
    for weighter, wanted in ((UniformWeighter(), False), (EntropyWeighter(), True)):
        entropies.clear()
        module = make_module(teachers=teachers, token_weighter=weighter)
        notes, _ = fit(module, make_data(8), tmp_path)
        assert set(entropies) == {wanted}
        assert ("entropy/student" in notes.metrics[0]) is wanted


def test_rewards_reach_a_strategy_that_declares_them(tmp_path):
    class RightOnly(TokenWeighter):
        requires = frozenset({"rewards"})

        def __call__(self, batch):
            assert batch.rewards.shape == (8,)
            return batch.rewards[:, None].expand(batch.tokens.shape)

    notes, _ = fit(make_module(token_weighter=RightOnly(), trajectory_filter=KeepAll()), make_data(8), tmp_path)
    assert 0 <= notes.metrics[0]["rollout/reward"] <= 1


@dataclass(eq=False)
class Blind(HFTeacher):
    """A teacher that gives log-probabilities and no distributions."""

    check_distributions = Teacher.check_distributions
    score_with_distributions = Teacher.score_with_distributions


BLIND = {"math": Blind("tiny/math"), "code": HFTeacher("tiny/code")}


class NeedsBase(Objective):
    requires = frozenset({"base_logprobs"})

    def advantage(self, batch):
        return batch.base_logprobs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teachers": {"math": HFTeacher("tiny/math")}}, "model.teachers: 'code': unknown teacher of the prompt code:"),
        ({"teachers": {**TEACHERS, "code": HFTeacher("tiny/nope")}}, "model.teachers.code.path: 'tiny/nope'"),
        ({"objective": NeedsBase()}, "model.base: None: NeedsBase reads base_logprobs"),
        ({"objective": NeedsBase(), "base": HFTeacher("tiny/nope")}, "model.base.path: 'tiny/nope'"),
        (
            {"objective": GeneralizedJSD(), "teachers": BLIND},
            "model.teachers.math: 'Blind': it only scores sampled tokens",
        ),
        ({"extra_signals": frozenset({"reverse_kl"}), "teachers": BLIND}, "model.teachers.math: 'Blind'"),
        ({"extra_signals": frozenset({"vibes"})}, "model.extra_signals: 'vibes': no such signal"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, settings, message):
    for place in ("training.student", "teachers.huggingface", "engines.hf.engine"):
        monkeypatch.setattr(f"fireopd.{place}.load_causal_lm", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match=message):
        fit(make_module(**settings), make_data(), tmp_path)


def test_the_base_model_is_loaded_where_it_is_read_and_stays_as_the_student_began(tmp_path):
    idle = make_module(base=HFTeacher("tiny/student"))
    fit(idle, make_data(8), tmp_path)
    assert idle.base.scorer is None
    module = make_module(base=HFTeacher("tiny/student"), objective=ExtrapolatedReverseKL(1.25))
    seen = []

    class Signals(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            scored = outputs["batch"]
            seen.append((scored.base_logprobs - scored.student_logprobs).abs().max().item())

    fit(module, make_data(16), tmp_path, callbacks=[Signals()])
    assert seen[0] < 1e-5
    assert seen[1] > 1e-4, "the student has moved, the base has not"
    assert not any(parameter.requires_grad for parameter in module.base.scorer.parameters())
    assert all(name.startswith("student.") for name, _ in module.named_parameters())


def test_a_base_that_is_a_teacher_too_is_loaded_once():
    module = make_module(base=HFTeacher("tiny/math"))
    assert module.base is module.teachers["math"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mini_batches": 0}, "mini_batches must be at least 1, got 0"),
        ({"gradient_clip": 0.0}, "gradient_clip must be greater than 0"),
        ({"clip_ratio": -0.2}, "clip_ratio must be greater than 0"),
        ({"importance_cap": 0.0}, "importance_cap must be greater than 0"),
    ],
)
def test_settings_have_a_range(settings, message):
    with pytest.raises(ValueError, match=message):
        make_module(**settings)


def test_validation_reports_every_task(tmp_path):
    _, trainer = fit(make_module(), make_data(16, num_validation=4, validation_responses=2), tmp_path)
    for task in ("math", "code"):
        values = {
            name: float(trainer.callback_metrics[f"val/{task}/{name}"])
            for name in ("avg_at_k", "pass_at_k", "maj_at_k")
        }
        assert 0 <= values["avg_at_k"] <= values["pass_at_k"] <= 1
        assert trainer.callback_metrics[f"val/{task}/length"] > 1


def random_model(folder, seed, scale):
    """Write a one-layer model that speaks the embedded models' vocabulary."""
    tokenizer = load_tokenizer("tiny/student", "model.student")
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, eos_token_id=tokenizer.eos_token_id, max_position_embeddings=64,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_student_learns_from_its_teacher(tmp_path):
    """The reverse KL of a random student to a random teacher falls to a third within 60 steps."""

    def adam(parameters):
        return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)

    student, teacher = random_model(tmp_path / "s", 0, 1.0), random_model(tmp_path / "t", 1, 20.0)
    data = RolloutDataModule(
        student=student,
        prompts=TinyPrompts(teachers={"math": "math"}, num_training=60 * 32, num_validation=0),
        engine=HFEngine(max_response_length=8),
        batch_size=32,
    )
    module = FiReOPDModule({"math": HFTeacher(teacher)}, student=student, optimizer=adam)
    notes, _ = fit(module, data, tmp_path)
    divergence = [metrics["train/reverse_kl"] for metrics in notes.metrics]
    assert sum(divergence[:5]) / 5 > 0.5, "there is something to learn"
    assert sum(divergence[-5:]) < sum(divergence[:5]) / 3


def test_an_interrupt_inside_a_step_loses_no_batch(tmp_path, monkeypatch):
    whole, _ = fit(make_module(), make_data(32), tmp_path / "whole")

    def interrupt(module):
        if module.policy_version == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        before_each_step(patch, interrupt)
        with pytest.raises(SystemExit):
            fit(make_module(), make_data(32), tmp_path, callbacks=[RunCheckpoint()], enable_checkpointing=True)
    (last,) = tmp_path.rglob("last.ckpt")
    notes, again = Notes(), make_module()
    trainer = make_trainer(tmp_path, callbacks=[notes, RunCheckpoint()], enable_checkpointing=True)
    trainer.fit(again, make_data(32), ckpt_path=last, weights_only=True)
    assert again.policy_version == 4
    for one, other in zip(whole.weights[-1], notes.weights[-1], strict=True):
        assert torch.equal(one, other)


class Rising(TokenWeighter):
    """A weighter with a state: the number of batches that it has seen."""

    def __init__(self):
        self.seen = 0

    def __call__(self, batch):
        self.seen += 1
        return torch.ones(batch.tokens.shape)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = state_dict["seen"]


def test_the_state_of_a_strategy_is_in_the_checkpoint_also_inside_a_composition(tmp_path):
    weighter = ProductOf([UniformWeighter(), Rising()])
    _, trainer = fit(make_module(token_weighter=weighter), make_data(16), tmp_path)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    other = ProductOf([UniformWeighter(), Rising()])
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    module = make_module(token_weighter=other)
    module.trainer = trainer
    module.on_load_checkpoint(checkpoint)
    assert other.weighters[1].seen == 2
    module = make_module(token_weighter=ProductOf([Rising()]))
    module.trainer = trainer
    with pytest.raises(ValueError, match="state of '1', which is not a stateful strategy in this run"):
        module.on_load_checkpoint(checkpoint)


def test_resuming_gives_the_same_numbers(tmp_path):
    whole, _ = fit(make_module(), make_data(32), tmp_path)
    half = ModelCheckpoint(tmp_path, "half", every_n_train_steps=2, save_top_k=1)
    fit(make_module(), make_data(32), tmp_path, callbacks=[half], max_steps=2, max_epochs=-1, enable_checkpointing=True)
    again, data, notes = make_module(), make_data(32), Notes()
    trainer = make_trainer(tmp_path, callbacks=[notes])
    trainer.fit(again, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert again.policy_version == 4
    for one, other in zip(whole.weights[-1], notes.weights[-1], strict=True):
        assert torch.equal(one, other)


def test_a_validation_without_training_and_one_after_it(tmp_path):
    module, data = make_module(), make_data(num_validation=4)
    [before] = make_trainer(tmp_path).validate(module, data, verbose=False)
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.fit(module, data)
    [after] = trainer.validate(module, data, verbose=False)
    assert before.keys() == after.keys()
    assert data.engine.policy_version == -1, "it is closed"
    assert module.validated[0] == 1

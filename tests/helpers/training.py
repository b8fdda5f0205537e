"""Short training runs on the embedded models."""

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from fireopd.engines import HFEngine
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.prompts import TinyPrompts
from fireopd.teachers import HFTeacher
from fireopd.training.data import RolloutDataModule
from fireopd.training.module import FiReOPDModule
from fireopd.training.optimizer_step import take_step
from fireopd.weighters import EntropyWeighter

TEACHERS = {"math": HFTeacher("tiny/math"), "code": HFTeacher("tiny/code")}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def make_module(**settings):
    teachers = {"math": HFTeacher("tiny/math"), "code": HFTeacher("tiny/code")}
    defaults = {"teachers": teachers, "trajectory_filter": TeacherLikelihoodFilter(0.25), "optimizer": sgd}
    return FiReOPDModule(**(defaults | {"token_weighter": EntropyWeighter()} | settings))


def make_data(num_training=16, **settings):
    prompts = TinyPrompts(num_training=num_training, num_validation=settings.pop("num_validation", 0))
    engine = settings.pop("engine", HFEngine(max_response_length=24))
    return RolloutDataModule(prompts=prompts, engine=engine, **({"batch_size": 8, "seed": 3} | settings))


def before_each_step(monkeypatch, act):
    """Call a function with the module before each optimizer step."""

    def step(module, *arguments):
        act(module)
        return take_step(module, *arguments)

    monkeypatch.setattr("fireopd.training.module.take_step", step)


class Notes(Callback):
    """Writes down what every step logged and left behind."""

    def __init__(self):
        self.metrics, self.weights = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.weights.append([p.detach().clone() for p in pl_module.parameters()])


def make_trainer(tmp_path, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "max_epochs": 1}
    return Trainer(default_root_dir=tmp_path, **(quiet | settings))


def fit(module, data, tmp_path, **settings):
    notes = Notes()
    trainer = make_trainer(tmp_path, **({"callbacks": [notes]} | settings))
    trainer.fit(module, data)
    return notes, trainer

"""Settings in checkpoints: what differs is found under its key, and what makes another run is told from the rest."""

import pytest

from fireopd.training.run_settings import Difference, differences, flatten, plain

SAVED = {
    "seed_everything": 1,
    "model": {
        "student": "tiny/student",
        "teachers": {"math": {"class_path": "fireopd.teachers.HFTeacher", "init_args": {"path": "a", "dtype": "x"}}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "betas": [0.9, 0.999]}},
        "scheduler": None,
        "token_budget": 64,
    },
    "data": {"batch_size": 8, "engine": {"class_path": "fireopd.engines.HFEngine", "init_args": {"batch_size": 4}}},
    "trainer": {"max_steps": -1, "precision": "32-true", "callbacks": ["a"]},
}


def changed(path, value):
    """Return the settings with another value at a path."""
    copy = {name: dict(section) if isinstance(section, dict) else section for name, section in SAVED.items()}
    place = copy
    for name in path[:-1]:
        place[name] = dict(place[name])
        place = place[name]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "shown", "free"),
    [
        (("seed_everything",), 2, "seed_everything: 1 in the checkpoint, 2 now", False),
        (("data", "batch_size"), 4, "data.batch_size: 8 in the checkpoint, 4 now", False),
        (("data", "engine", "init_args", "batch_size"), 8, "data.engine.batch_size: 4 in the checkpoint, 8 now", True),
        (("model", "token_budget"), 1, "model.token_budget: 64 in the checkpoint, 1 now", True),
        (("model", "teachers", "math", "init_args", "path"), "b", "model.teachers.math.path: a in the che", False),
        (
            ("model", "teachers", "code"),
            {"class_path": "fireopd.teachers.HFTeacher"},
            "model.teachers.code: ",
            False,
        ),
        (("model", "optimizer", "init_args", "lr"), 1, "model.optimizer.lr: 0.001 in the checkpoint, 1 now", True),
        (("model", "optimizer", "class_path"), "torch.optim.SGD", "model.optimizer: AdamW in the check", False),
        (
            ("model", "scheduler"),
            {"class_path": "x.Cosine"},
            "model.scheduler: null in the ",
            False,
        ),
        (("trainer", "max_steps"), 3, "trainer.max_steps: -1 in the checkpoint, 3 now", True),
        (("trainer", "precision"), "bf16-mixed", "trainer.precision: 32-true in the checkpoint", False),
    ],
)
def test_a_change_is_found_under_its_key(path, value, shown, free):
    (found,) = differences(SAVED, changed(path, value))
    assert str(found).startswith(shown)
    assert found.free == free
    assert found.applied == (path[-1] == "lr")


def test_the_effect_of_a_change_on_a_resumed_run_is_told():
    keys = ("model.optimizer.lr", "trainer.num_sanity_val_steps", "trainer.val_check_interval")
    found = [Difference(key, "1", "2") for key in keys]
    assert [change.effect.partition(":")[0] for change in found] == ["applied to the optimizer", "without effect", ""]
    assert all(change.free for change in found)


def test_parameters_of_another_version_and_moved_classes_are_no_change(tmp_path):
    now = changed(("model", "new_setting"), 1)
    now["model"]["teachers"] = {"math": {"class_path": "fireopd.elsewhere.HFTeacher", "init_args": {"path": "a"}}}
    assert differences(SAVED, now) == []
    file = tmp_path / "train.jsonl"
    file.touch()
    again = tmp_path / ".." / tmp_path.name / "train.jsonl"
    one, other = ({"data": {"prompts": {"train": str(path)}}} for path in (file, again))
    assert differences(one, other) == []


def test_settings_are_plain_values_without_those_of_the_command():
    settings = {"ckpt_path": "last", "data": {"seed": 1, "x": {1}, "y": (1, 2)}, "trainer": {"precision": None}}
    assert plain(settings) == {"data": {"x": [1], "y": [1, 2]}, "trainer": {"precision": "32-true"}}
    assert flatten(SAVED)["model.teachers.math"] == "fireopd.teachers.HFTeacher"
    assert flatten(SAVED)["model.optimizer.lr"] == 1e-3


def test_functions_and_objects_are_compared_without_their_address():
    def rate():
        return 1

    one, other = ({"model": {"schedule": value}} for value in (rate, lambda: 2))
    assert "0x" not in str(plain(one))
    assert differences(plain(one), plain({"model": {"schedule": rate}})) == []
    assert [found.key for found in differences(plain(one), plain(other))] == ["model.schedule"]

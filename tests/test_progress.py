"""Progress reports, and the progress bar of long tasks."""

from types import SimpleNamespace

import pytest

from fireopd.callbacks import progress as bars
from fireopd.callbacks.progress import Progress
from fireopd.progress import set_listener, track


@pytest.fixture
def reports():
    found = []
    set_listener(lambda *report: found.append(report))
    yield found
    set_listener(None)


def test_progress_is_reported_before_each_item_and_at_the_end(reports):
    assert list(track("ab", "update")) == ["a", "b"]
    assert reports == [("update", 0, 2), ("update", 1, 2), ("update", 2, 2)]


def test_a_loop_that_ends_early_or_fails_is_complete(reports):
    for number in track(range(9), "rollout"):
        if number == 2:
            break
    assert reports[-2:] == [("rollout", 2, 9), ("rollout", 9, 9)]
    with pytest.raises(ZeroDivisionError):
        [1 // number for number in track([1, 0, 1], "scoring")]
    assert reports[-1] == ("scoring", 3, 3)


def test_a_listener_is_optional():
    assert list(track([1, 2], "update")) == [1, 2]


class FakeBars:
    """Records the updates of the bars."""

    def __init__(self):
        self.drawn = []

    def add_task(self, description, total, visible):
        self.drawn.append(f"new {description}")
        return 7

    def update(self, part, **shown):
        assert part == 7
        self.drawn.append((shown["description"], shown["completed"], shown["total"], shown["visible"]))


def test_only_long_tasks_get_a_temporary_bar(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    callback = Progress()
    callback.progress = FakeBars()
    for finished in range(5):
        callback.note("update", finished, 4)
        now[0] += 0.3
    assert callback.progress.drawn == [], "short tasks get no bar"
    for finished in range(5):
        callback.note("rollout", finished, 4)
        now[0] += 1.0
    assert callback.progress.drawn == ["new rollout", ("rollout", 3, 4, True), ("rollout", 4, 4, False)]
    callback.progress.drawn.clear()
    callback.note("scoring", 0, 1000)
    now[0] += 3.0
    for finished in range(1, 1000):
        callback.note("scoring", finished, 1000)
        now[0] += 0.001
    assert 5 <= len(callback.progress.drawn) <= 12, "updated every tenth of a second"


def test_the_progress_bar_listens_during_the_run(monkeypatch):
    callback, module = Progress(), SimpleNamespace()
    seen = []
    monkeypatch.setattr(callback, "note", lambda *report: seen.append(report))
    callback.setup(SimpleNamespace(is_global_zero=True, local_rank=0), module, "fit")
    list(track("a", "update"))
    callback.teardown(SimpleNamespace(), module, "fit")
    list(track("b", "update"))
    assert seen == [("update", 0, 1), ("update", 1, 1)]


@pytest.mark.parametrize(
    ("max_steps", "taken", "in_epoch", "updates", "expected"),
    [(-1, 0, 0, 1, 150), (12, 0, 0, 1, 12), (12, 8, 4, 2, 6), (400, 150, 0, 1, 150), (160, 150, 0, 1, 10)],
)
def test_the_bar_ends_with_the_last_step(max_steps, taken, in_epoch, updates, expected):
    progress = SimpleNamespace(current=SimpleNamespace(completed=in_epoch))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    callback = Progress()
    callback._trainer = SimpleNamespace(
        max_steps=max_steps,
        global_step=taken,
        num_training_batches=150,
        fit_loop=loop,
        lightning_module=SimpleNamespace(budgets=SimpleNamespace(updates=updates)),
    )
    assert callback.total_train_batches == expected


@pytest.mark.parametrize(
    ("max_epochs", "label"), [(1, "Training  "), (None, "Training  "), (-1, "Training  "), (3, "Epoch 0/2 ")]
)
def test_only_runs_of_several_epochs_count_them(max_epochs, label):
    callback = Progress()
    callback._trainer = SimpleNamespace(max_epochs=max_epochs)
    assert callback._get_train_description(0) == label

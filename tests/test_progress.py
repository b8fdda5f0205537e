"""Work that is tracked, and the bar that shows it when it takes long."""

from types import SimpleNamespace

import pytest

from fireopd.callbacks import progress as bars
from fireopd.callbacks.progress import Progress
from fireopd.progress import set_listener, track


@pytest.fixture
def heard():
    found = []
    set_listener(lambda *news: found.append(news))
    yield found
    set_listener(None)


def test_work_is_told_before_each_part_and_at_its_end(heard):
    assert list(track("ab", "update")) == ["a", "b"]
    assert heard == [("update", 0, 2), ("update", 1, 2), ("update", 2, 2)]


def test_work_that_ends_early_or_fails_is_finished(heard):
    for number in track(range(9), "rollout"):
        if number == 2:
            break
    assert heard[-2:] == [("rollout", 2, 9), ("rollout", 9, 9)]
    with pytest.raises(ZeroDivisionError):
        [1 // number for number in track([1, 0, 1], "scoring")]
    assert heard[-1] == ("scoring", 3, 3)


def test_nobody_has_to_listen():
    assert list(track([1, 2], "update")) == [1, 2]


class FakeBars:
    """Writes down what is drawn."""

    def __init__(self):
        self.drawn = []

    def add_task(self, description, total, visible):
        self.drawn.append(f"new {description}")
        return 7

    def update(self, part, **shown):
        assert part == 7
        self.drawn.append((shown["description"], shown["completed"], shown["total"], shown["visible"]))


def test_only_what_takes_long_gets_a_bar_which_goes_when_it_is_over(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    callback = Progress()
    callback.progress = FakeBars()
    for finished in range(5):
        callback.note("update", finished, 4)
        now[0] += 0.3
    assert callback.progress.drawn == [], "a second is nothing"
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
    assert 5 <= len(callback.progress.drawn) <= 12, "looked at every tenth of a second"


def test_it_listens_as_long_as_the_run(monkeypatch):
    callback, module = Progress(), SimpleNamespace()
    seen = []
    monkeypatch.setattr(callback, "note", lambda *news: seen.append(news))
    callback.setup(SimpleNamespace(is_global_zero=True, local_rank=0), module, "fit")
    list(track("a", "update"))
    callback.teardown(SimpleNamespace(), module, "fit")
    list(track("b", "update"))
    assert seen == [("update", 0, 1), ("update", 1, 1)]

"""Conformance checks of prompt sources: each fault is found and named, and legal oddities pass."""

import importlib
import random
import re
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from fireopd.prompts import JSONLPrompts, PromptSource, PromptText
from fireopd.testing import ConformanceWarning, check_prompts, prompt_checks
from fireopd.verifiers import ExactMatch, Verifier


@dataclass(frozen=True)
class Right(PromptSource):
    """Sums of two digits."""

    verifier: Verifier | None = field(default_factory=ExactMatch)
    seen: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def training(self, seed):
        return self.draw(random.Random(seed), 5, 8)

    def validation(self):
        return self.draw(random.Random("validation"), 0, 4)

    def draw(self, generator, low, number):
        return [self.text(a, low + number) for a in generator.sample(range(low, low + number), number)]

    def text(self, a, b):
        return PromptText(f"{a}+{b}", "math", "sum", str(a + b), f"{a}")


@dataclass(frozen=True)
class SameIds(Right):
    def text(self, a, b):
        return PromptText(f"{a}+{b}", "math", "sum", str(a + b), f"{a // 2}")


@dataclass(frozen=True)
class NoTeacher(Right):
    def text(self, a, b):
        return PromptText(f"{a}+{b}", None, "sum", str(a + b), f"{a}")


@dataclass(frozen=True)
class NoRole(Right):
    def text(self, a, b):
        return PromptText([{"content": f"{a}"}], "math", "sum", str(a + b), f"{a}")


@dataclass(frozen=True)
class Nothing(Right):
    def training(self, seed):
        return []


@dataclass(frozen=True)
class Generated(Right):
    def training(self, seed):
        return (text for text in super().training(seed))


@dataclass(frozen=True)
class Fails(Right):
    def validation(self):
        return self.missing


@dataclass(frozen=True)
class Unseeded(Right):
    def training(self, seed):
        return self.draw(random.Random(), 5, 8)


@dataclass(frozen=True)
class Reseeds(Right):
    def training(self, seed):
        random.seed(seed)
        return self.draw(random, 5, 8)


@dataclass(frozen=True)
class ReseedsTorch(Right):
    def training(self, seed):
        torch.manual_seed(seed)
        return super().training(seed)


@dataclass(frozen=True)
class MovingValidation(Right):
    def validation(self):
        return self.draw(random.Random(), 0, 60)


@dataclass(frozen=True)
class CountingValidation(Right):
    """Counts the calls of training."""

    def training(self, seed):
        self.seen["calls"] = self.seen.get("calls", 0) + 1
        return super().training(seed)

    def validation(self):
        return [self.text(0, self.seen["calls"])]


@dataclass(frozen=True)
class OrderOutside(Right):
    def order(self, prompts, seed, epoch):
        return range(1, len(prompts) + 1)


@dataclass(frozen=True)
class OrderUnseeded(Right):
    def order(self, prompts, seed, epoch):
        return random.sample(range(len(prompts)), len(prompts))


@dataclass(frozen=True)
class OrderShrinks(Right):
    def order(self, prompts, seed, epoch):
        return list(range(len(prompts) - epoch // 2))


@dataclass(frozen=True)
class OrderContinues(Right):
    """Shuffles the order of the epoch before."""

    def order(self, prompts, seed, epoch):
        number = self.seen.setdefault(epoch, len(self.seen))
        return random.Random(number).sample(range(len(prompts)), len(prompts))


@dataclass(frozen=True)
class OtherVerifier(Right):
    @property
    def verifiers(self):
        return {"": "FinalAnswer"}


@dataclass(frozen=True)
class UnknownSource(Right):
    def text(self, a, b):
        return PromptText(f"{a}+{b}", "math", "sum", str(a + b), f"{a}", source="other")


@dataclass(frozen=True)
class EmptyReference(Right):
    def text(self, a, b):
        return PromptText(f"{a}+{b}", "math", "sum", " ", f"{a}")


@dataclass
class NotFrozen(PromptSource):
    def training(self, seed):
        return [PromptText("1", "math", "sum", None, "1")]

    def validation(self):
        return []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SameIds(), "gives 2 training prompts the id '[2-6]'. Make ids unique: they seed rollouts"),
        (NoTeacher(), "returned teacher=None from training for prompt .*. Set teacher to a text"),
        (NoRole(), "returned the content .* Return text, or chat messages"),
        (Nothing(), "returns no training prompts"),
        (Generated(), "returned a generator from training. Return a list of PromptText"),
        (Fails(), r"raises AttributeError \(test_prompt_checks.py, line \d+\): .*no attribute 'missing'"),
        (Unseeded(), "returns other training prompts for the same seed. Draw from random.Random"),
        (Reseeds(), "draws from a global generator"),
        (ReseedsTorch(), "draws from a global generator"),
        (MovingValidation(), "returns other validation prompts in a second call"),
        (CountingValidation(), "returns other validation prompts in a second call"),
        (OrderOutside(), "returned the index 8 from order, for 8 training prompts. Return integers from 0 to 7"),
        (OrderUnseeded(), "returns another order for the same seed and epoch. Seed a generator with both"),
        (OrderShrinks(), "returned 7 indices from order, and 8 for the first epoch"),
        (OrderContinues(), "returns another order of an epoch after a resume"),
        (OtherVerifier(), "has a str as verifier. Use a Verifier, or None"),
        (UnknownSource(), "returns prompts of the source 'other', which has no verifier"),
        (EmptyReference(), "raises .* must pass: .*its reference answer is empty"),
        (NotFrozen(), r"is not a dataclass\(frozen=True\). Write @dataclass\(frozen=True\) above class NotFrozen"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_fault_is_found_with_the_name_of_the_source(source, message):
    with pytest.raises(AssertionError) as found:
        check_prompts(source)
    text = " ".join(str(found.value).split())
    assert "violates 1 rule of its contract" in text, text
    assert re.search(f"- {type(source).__name__} {message}", text), text


@dataclass(frozen=True)
class Common(Right):
    def validation(self):
        return self.training(1)[:2]


@dataclass(frozen=True)
class Unanswered(Right):
    def validation(self):
        return [PromptText("1", "math", "sum", None, "v")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Common(), "has 2 of . training prompts also in the validation set"),
        (Unanswered(), "has 1 of 1 validation prompts without an answer or details, such as v"),
    ],
    ids=["common", "unanswered"],
)
def test_what_may_be_meant_is_a_warning(source, message):
    with pytest.warns(ConformanceWarning, match=message):
        check_prompts(source)


@pytest.mark.filterwarnings("error::fireopd.testing.ConformanceWarning")
def test_a_right_source_passes(tmp_path):
    check_prompts(Right())
    check_prompts(Right(verifier=None))
    (tmp_path / "a.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "1+2", "answer": "3"}\n')
    check_prompts(JSONLPrompts(train=tmp_path / "a.jsonl", teacher="math"))
    with pytest.raises(TypeError, match=r"is not a PromptSource: pass an instance, Right\(...\)"):
        check_prompts(Right)


INSTALLED = """
import os, random, subprocess
from dataclasses import dataclass
from functools import cached_property
from fireopd.prompts import PromptSource, PromptText

@dataclass(frozen=True)
class Sorted(PromptSource):
    def names(self):
        return sorted({f"{number}+1" for number in range(50)})

    def training(self, seed):
        print("reads")
        subprocess.run(["echo", "reads"])
        return [PromptText(name, "math", "sum", None, name) for name in self.names()]

    def validation(self):
        return []

@dataclass(frozen=True)
class OfASet(Sorted):
    def names(self):
        return list(set(super().names()))

@dataclass(frozen=True)
class Cached(OfASet):
    @cached_property
    def kept(self):
        return super().names()

    def names(self):
        return self.kept

@dataclass(frozen=True)
class HashOrder(Sorted):
    def order(self, prompts, seed, epoch):
        return random.Random(hash("x") + seed + epoch).sample(range(len(prompts)), len(prompts))

@dataclass(frozen=True)
class Absent(Sorted):
    def names(self):
        import sys
        assert "pytest" in sys.modules, "not here"
        return super().names()

@dataclass(frozen=True)
class Killed(Sorted):
    def names(self):
        import sys
        if "pytest" not in sys.modules:
            os._exit(5)
        return super().names()
"""
OTHERS = "another process, which a resume .* refuse\\. Sort what comes from a set"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A module that another process can import."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "installed_source.py").write_text(INSTALLED)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("installed_source")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OfASet", OTHERS),
        ("Cached", OTHERS),
        ("HashOrder", OTHERS),
        ("Absent", r"fails in another process, with exit code 1: AssertionError: not here\."),
        ("Killed", "fails in another process, with exit code 5: "),
    ],
)
def test_what_depends_on_the_process_is_found(installed, name, message):
    with pytest.raises(AssertionError) as found:
        check_prompts(getattr(installed, name)())
    assert re.search(f"- {name} .*{message}", " ".join(str(found.value).split()))


def test_a_source_that_prints_is_the_same_in_another_process(installed):
    check_prompts(installed.Sorted())


def test_a_source_that_never_ends_in_another_process_is_found(installed, monkeypatch):
    def run(*arguments, timeout, **settings):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    case = prompt_checks.SourceCase(Right())
    assert prompt_checks.returns_equal_prompts_in_another_process(case).startswith("needs more than 600 s")

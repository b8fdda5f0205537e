"""Conformance checks of prompt sources: valid and reproducible prompts, the order of epochs, and the verifier."""

import copy
import os
import pickle
import random
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import cached_property

import torch

from fireopd.prompts import PromptSource, PromptText
from fireopd.prompts.contract import checked_order, checked_texts
from fireopd.prompts.tokenization import untokenized
from fireopd.testing.checks import report
from fireopd.testing.plugin_checks import settings_violations, violations_of
from fireopd.testing.warning import ConformanceWarning
from fireopd.verifiers import Verifier
from fireopd.verifiers.contract import verifier_key

__all__ = ["check_prompts"]

KEY = "data.prompts"
SEEDS = (1, 2)
"""Seeds of two runs."""
EPOCH = 7
"""Epoch whose order is compared."""
TIMEOUT = 600.0
"""Time limit of the other process, seconds."""
NO_MODULE = 3
"""Exit code of a process that cannot import the module of a source."""
OTHER_PROCESS = f"""
import os, pickle, sys
output = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # a source may print
sys.path[:], source, seed = pickle.load(sys.stdin.buffer)
try:
    source = pickle.loads(source)
except (ModuleNotFoundError, AttributeError):
    sys.exit({NO_MODULE})
from fireopd.prompts.tokenization import untokenized
training = list(source.training(seed))
order = list(source.order(untokenized(training), seed, {EPOCH}))
output.write(pickle.dumps((training, list(source.validation()), order)))
output.flush()
"""
"""Program that writes the prompts of a source, and their order in an epoch."""


@dataclass(eq=False)
class SourceCase:
    """A prompt source under test."""

    source: PromptSource

    def read_training(self, seed: int) -> list[PromptText]:
        """Return the checked training prompts."""
        return checked_texts(KEY, self.source, "training", self.source.training(seed))

    @cached_property
    def fresh(self) -> PromptSource:
        """Copy of the source; before its first call, the source of a run that resumes."""
        return copy.deepcopy(self.source)

    @cached_property
    def pickled(self) -> bytes:
        """The source before its first call, for another process; empty if it cannot be pickled."""
        try:
            return pickle.dumps(self.source)
        except Exception:  # a plug-in can raise anything; the check of its settings says so
            return b""

    @cached_property
    def training(self) -> list[PromptText]:
        """Training prompts of the first seed."""
        return self.read_training(SEEDS[0])

    @cached_property
    def validation(self) -> list[PromptText]:
        """Validation prompts."""
        return checked_texts(KEY, self.source, "validation", self.source.validation())


def check_prompts(source: PromptSource) -> None:
    """Check the contract of a prompt source.

    Training prompts in the validation set, and validation prompts without answers, are a `ConformanceWarning`.

    Args:
        source: an instance, with any settings.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    found = settings_violations(source, PromptSource, frozen=True)
    case = SourceCase(source)
    found += violations_of(type(source).__name__, case, CHECKS)
    found += [] if found else violations_of(type(source).__name__, case, [returns_equal_prompts_in_another_process])
    report(found, source)
    for problem in _doubts(case):
        warnings.warn(f"{source!r} {problem}", ConformanceWarning, stacklevel=2)


def returns_valid_prompts(case: SourceCase) -> str:
    """Check the prompts of both sets."""
    _ = case.fresh, case.pickled  # before the first call
    if not case.training:
        return "returns no training prompts. Return at least one."
    for kind, texts in (("training", case.training), ("validation", case.validation)):
        ids = [text.id for text in texts]
        if len(set(ids)) < len(ids):
            double = next(name for name in ids if ids.count(name) > 1)
            return f"gives {ids.count(double)} {kind} prompts the id {double!r}. Make ids unique: they seed rollouts."
    return ""


def returns_equal_prompts_again(case: SourceCase) -> str:
    """Check that prompts depend on the seed only, and validation prompts on nothing."""
    training, validation = list(case.training), list(case.validation)
    random.seed(12345)
    torch.manual_seed(12345)
    generators = random.getstate(), torch.get_rng_state()
    case.read_training(SEEDS[1])
    if case.read_training(SEEDS[0]) != training:
        return (
            "returns other training prompts for the same seed. Draw from random.Random(seed) or a torch.Generator, "
            "and not from the global generators."
        )
    if checked_texts(KEY, case.source, "validation", case.source.validation()) != validation:
        return "returns other validation prompts in a second call. They do not depend on the seed of the run."
    if random.getstate() != generators[0] or not torch.equal(torch.get_rng_state(), generators[1]):
        return "draws from a global generator. Create random.Random(seed), or a torch.Generator."
    return ""


def returns_equal_prompts_in_another_process(case: SourceCase) -> str:
    """Check that a process in which sets have another order returns the same prompts, in the same order.

    The process shares no variables, patches or files in memory with this one. A source whose module it cannot import,
    for example one of a notebook, is not checked.
    """
    if not case.pickled:
        return ""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    try:
        done = subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS],
            input=pickle.dumps((sys.path, case.pickled, SEEDS[0])),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=False,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"needs more than {TIMEOUT:.0f} s for its prompts in another process."
    if done.returncode == NO_MODULE:
        return ""
    if done.returncode:
        *_, last = ["", *done.stderr.decode(errors="replace").strip().splitlines()]
        return f"fails in another process, with exit code {done.returncode}: {last}."
    order = list(case.source.order(untokenized(case.training), SEEDS[0], EPOCH))
    if repr(pickle.loads(done.stdout)) == repr((list(case.training), list(case.validation), order)):
        return ""
    return (
        "returns other prompts, or another order, in another process, which a resume and a run on several processes "
        "refuse. Sort what comes from a set, use no hash(), and read no variables of this process."
    )


def returns_an_order_of_each_epoch(case: SourceCase) -> str:
    """Check that epochs have equally many valid indices, and that their order depends on seed and epoch only."""
    prompts = untokenized(case.training)
    first: int | None = None
    orders: list[list[int]] = []
    for epoch in (0, 1, 2, EPOCH):
        twice = [case.source.order(list(prompts), SEEDS[0], epoch) for _ in range(2)]
        orders = [checked_order(KEY, case.source, order, len(prompts), first) for order in twice]
        if orders[0] != orders[1]:
            return "returns another order for the same seed and epoch. Seed a generator with both."
        first = len(orders[0])
    case.fresh.training(SEEDS[0])
    if list(case.fresh.order(list(prompts), SEEDS[0], EPOCH)) != orders[0]:
        return (
            "returns another order of an epoch after a resume, which does not repeat the epochs before it. Keep no "
            "state: seed a generator with seed and epoch."
        )
    return ""


def has_a_usable_verifier(case: SourceCase) -> str:
    """Check the type of the verifiers, and that they accept the prompts."""
    prompts = untokenized([*case.training, *case.validation])
    verifiers = dict(case.source.verifiers)
    for source, verifier in verifiers.items():
        if not isinstance(verifier, Verifier):
            return f"has a {type(verifier).__name__} as verifier. Use a Verifier, or None for responses without grades."
        verifier.check(verifier_key(source), [prompt for prompt in prompts if prompt.source == source])
    known = {prompt.source for prompt in prompts}
    if verifiers and not known <= verifiers.keys():
        name = sorted(known - verifiers.keys())[0]
        return f"returns prompts of the source {name!r}, which has no verifier. Leave PromptText.source empty."
    return ""


def _doubts(case: SourceCase) -> list[str]:
    """Return descriptions of legal but suspicious prompts."""
    doubts = []
    contents = {str(text.content) for text in case.validation}
    common = [text.id for text in case.training if str(text.content) in contents]
    if common:
        share = f"{len(common)} of {len(case.training)} training prompts"
        doubts.append(f"has {share} also in the validation set, such as {common[0]}")
    unanswered = [text.id for text in case.validation if text.answer is None and not text.details]
    if unanswered and case.source.verifiers:
        share = f"{len(unanswered)} of {len(case.validation)} validation prompts"
        doubts.append(f"has {share} without an answer or details, such as {unanswered[0]}")
    return doubts


CHECKS = (
    returns_valid_prompts,
    returns_equal_prompts_again,
    returns_an_order_of_each_epoch,
    has_a_usable_verifier,
)

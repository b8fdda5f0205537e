"""The three examinations. A property is a function of the subject; the list is the same for all kinds of strategies."""

import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import replace

from fireopd.filters import TrajectoryFilter
from fireopd.objectives import DirectObjective, Objective
from fireopd.testing import answer_checks, invariance_checks, settings_checks
from fireopd.testing.divergence_checks import wrong_divergence
from fireopd.testing.subject import ADVANTAGE, COEFFICIENT, KEEP, VERSIONS, WEIGHT, NoAnswerError, Question, Subject
from fireopd.types.strategy import Strategy
from fireopd.weighters import TokenWeighter

Property = Callable[[Subject], str]
"""Returns a paragraph on what is wrong, or an empty string."""

OF_THE_OBJECT: tuple[Property, ...] = (
    settings_checks.is_a_frozen_dataclass,
    settings_checks.declares_signals_that_exist,
    settings_checks.declares_what_it_reads,
    settings_checks.shares_nothing_mutable,
    settings_checks.survives_pickling,
    settings_checks.prints_its_settings,
    settings_checks.comes_back_from_yaml,
)
"""Needs no answer."""
OF_THE_ANSWERS: tuple[Property, ...] = (
    invariance_checks.remembers_nothing,
    answer_checks.stays_in_range,
    answer_checks.gives_no_gradient,
    answer_checks.leaves_the_batch_alone,
    invariance_checks.ignores_what_is_off_the_mask,
    invariance_checks.does_not_depend_on_padding,
    invariance_checks.follows_the_order_of_rows,
    invariance_checks.answers_each_trajectory_alone_if_it_says_so,
    answer_checks.survives_the_edges,
    settings_checks.takes_its_state_back,
)
"""Needs answers of the right shape and type. The first has to come before a global variable has seen it all."""


def check_filter(strategy: TrajectoryFilter) -> None:
    """Examine a trajectory filter.

    Args:
        strategy: an instance, with any settings.

    Raises:
        AssertionError: that has a paragraph for each property that the filter lacks: what was seen, and how to mend it.
    """
    report(examine(strategy, KEEP), strategy)


def check_weighter(strategy: TokenWeighter) -> None:
    """Examine a token weighter.

    Args:
        strategy: an instance, with any settings.

    Raises:
        AssertionError: that has a paragraph for each property that the weighter lacks: what was seen, and how to mend
            it.
    """
    report(examine(strategy, WEIGHT), strategy)


def check_objective(strategy: Objective) -> None:
    """Examine an objective; what it descends is for `expected_gradient` to say.

    Args:
        strategy: an instance, with any settings.

    Raises:
        AssertionError: that has a paragraph for each property that the objective lacks: what was seen, and how to mend
            it.
    """
    if isinstance(strategy, DirectObjective):
        report(examine(strategy, ADVANTAGE, COEFFICIENT) + wrong_divergence(strategy), strategy)
    report(examine(strategy, ADVANTAGE), strategy)


def examine(strategy: Strategy, *questions: Question) -> list[str]:
    """Return a paragraph for each property that a strategy lacks when it is asked the questions of its kind.

    Raises:
        TypeError: if it is no instance of their class.
    """
    base = questions[0].of
    if not isinstance(strategy, base):
        made = f": give an instance, {strategy.__name__}(...)" if inspect.isclass(strategy) else ""
        raise TypeError(f"{strategy!r} is no {base.__name__}{made}")
    undeclared = undeclared_reads([Subject(strategy, question) for question in questions])
    subjects = [Subject(strategy, question, undeclared) for question in questions]
    broken = wrong(subjects[0], OF_THE_OBJECT)
    for subject in subjects:
        broken += wrong(subject, [answer_checks.answers]) or wrong(subject, OF_THE_ANSWERS)
    return broken


def undeclared_reads(subjects: Iterable[Subject]) -> frozenset[str]:
    """Return the signals that a strategy reads without declaring them, as far as it can be asked at all."""
    undeclared: frozenset[str] = frozenset()
    for subject, version in itertools.product(subjects, VERSIONS):
        try:
            reads = subject.reads(replace(subject.quiet, policy_version=version))
        except Exception:  # `answers` tells of it
            continue
        undeclared |= reads - subject.declared
    return undeclared


def wrong(subject: Subject, properties: Iterable[Property]) -> list[str]:
    """Return a paragraph for each property that a subject lacks."""
    broken = []
    for holds in properties:
        try:
            problem = holds(subject)
        except NoAnswerError as error:
            problem = str(error)
        broken += [f"{subject.title} {problem}"] if problem else []
    return list(dict.fromkeys(broken))


def report(broken: list[str], strategy: Strategy) -> None:
    """Raise `AssertionError` with all the paragraphs, if there are any."""
    if broken:
        heading = f"{strategy!r} breaks {len(broken)} rule{'s' * (len(broken) > 1)} of its contract:"
        paragraphs = [textwrap.fill(text, 110, initial_indent="- ", subsequent_indent="  ") for text in broken]
        raise AssertionError("\n\n".join([heading, *paragraphs]))

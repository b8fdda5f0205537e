"""Conformance checks of filters, weighters and objectives."""

import inspect
import itertools
import textwrap
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from fireopd.filters import TrajectoryFilter
from fireopd.objectives import DirectObjective, Objective
from fireopd.testing import answer_checks, invariance_checks, operation_checks, settings_checks
from fireopd.testing.alignment_doubts import alignment_doubts
from fireopd.testing.divergence_checks import divergence_violations
from fireopd.testing.subject import ADVANTAGE, COEFFICIENT, KEEP, VERSIONS, WEIGHT, MethodSpec, NoAnswerError, Subject
from fireopd.testing.warning import ConformanceWarning
from fireopd.types.strategy import Strategy
from fireopd.weighters import TokenWeighter

__all__ = ["check_filter", "check_objective", "check_weighter"]

Check = Callable[[Subject], str]
"""Returns a paragraph on the violation; empty if the check passes."""

SETTINGS_CHECKS: tuple[Check, ...] = (
    settings_checks.is_a_frozen_dataclass,
    settings_checks.declares_known_signals,
    settings_checks.declares_all_signals_it_reads,
    settings_checks.has_no_mutable_defaults,
    settings_checks.can_be_pickled,
    settings_checks.prints_its_settings,
    settings_checks.can_be_written_in_yaml,
)
"""Checks that need no answer."""
ANSWER_CHECKS: tuple[Check, ...] = (
    invariance_checks.has_no_hidden_state,
    operation_checks.draws_anew_in_every_step,
    operation_checks.computes_in_full_precision,
    answer_checks.stays_in_range,
    answer_checks.returns_no_gradient,
    answer_checks.does_not_modify_the_batch,
    invariance_checks.ignores_values_off_the_mask,
    invariance_checks.does_not_depend_on_padding,
    invariance_checks.does_not_depend_on_row_order,
    invariance_checks.does_not_read_group_numbers,
    invariance_checks.ignores_empty_responses,
    invariance_checks.does_not_compare_rows_if_by_trajectory,
    invariance_checks.declares_that_it_needs_groups,
    answer_checks.handles_edge_cases,
    settings_checks.restores_its_state,
)
"""Checks that need answers of valid shape. `has_no_hidden_state` must run before global variables see other batches."""


def check_filter(strategy: TrajectoryFilter) -> None:
    """Check the contract of a trajectory filter.

    Args:
        strategy: an instance, with any settings.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    report(violations(strategy, KEEP), strategy)
    for part in in_effect(strategy):
        check_filter(part)


def check_weighter(strategy: TokenWeighter) -> None:
    """Check the contract of a token weighter.

    Args:
        strategy: an instance, with any settings.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    report(violations(strategy, WEIGHT), strategy)
    for part in in_effect(strategy):
        check_weighter(part)
    warn(strategy, WEIGHT)


def check_objective(strategy: Objective) -> None:
    """Check the contract of an objective; see `expected_gradient` for its gradient.

    Args:
        strategy: an instance, with any settings.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    if isinstance(strategy, DirectObjective):
        report(violations(strategy, ADVANTAGE, COEFFICIENT) + divergence_violations(strategy), strategy)
    report(violations(strategy, ADVANTAGE), strategy)
    warn(strategy, ADVANTAGE)
    for part in in_effect(strategy):
        check_objective(part)


def in_effect(strategy: Strategy) -> list[Any]:
    """Return the strategies that are in effect at the test's policy versions, if the strategy changes with the step."""
    parts = [strategy.at(version) for version in VERSIONS]
    return [part for part in parts if part is not strategy]


def warn(strategy: Strategy, spec: MethodSpec) -> None:
    """Warn of answers that keep the contract and look misaligned with the tokens."""
    for doubt in alignment_doubts(Subject(strategy, spec)):
        warnings.warn(f"{strategy!r} {doubt}.", ConformanceWarning, stacklevel=3)


def violations(strategy: Strategy, *specs: MethodSpec) -> list[str]:
    """Return one paragraph per violation of the contract of a strategy's methods.

    Raises:
        TypeError: if the strategy is not an instance of their base class.
    """
    base = specs[0].base
    if not isinstance(strategy, base):
        remedy = f": pass an instance, {strategy.__name__}(...)" if inspect.isclass(strategy) else ""
        raise TypeError(f"{strategy!r} is not a {base.__name__}{remedy}")
    undeclared = undeclared_signals([Subject(strategy, spec) for spec in specs])
    subjects = [Subject(strategy, spec, undeclared) for spec in specs]
    found = failures(subjects[0], SETTINGS_CHECKS)
    for subject in subjects:
        found += failures(subject, [answer_checks.has_valid_shape]) or failures(subject, ANSWER_CHECKS)
    return found


def undeclared_signals(subjects: Iterable[Subject]) -> frozenset[str]:
    """Return the signals that a strategy reads without declaring them, on batches where it raises no error."""
    undeclared: frozenset[str] = frozenset()
    for subject, version in itertools.product(subjects, VERSIONS):
        try:
            names = subject.signals_read(replace(subject.narrow, policy_version=version))
        except Exception:  # `has_valid_shape` reports it
            continue
        undeclared |= names - subject.declared
    return undeclared


def failures(subject: Subject, checks: Iterable[Check]) -> list[str]:
    """Return one paragraph per failed check of a subject."""
    found = []
    for check in checks:
        try:
            problem = check(subject)
        except NoAnswerError as error:
            problem = str(error)
        found += [f"{subject.title} {problem}"] if problem else []
    return list(dict.fromkeys(found))


def report(paragraphs: list[str], plugin: object) -> None:
    """Raise `AssertionError` with all paragraphs, if there are any."""
    if paragraphs:
        heading = f"{plugin!r} violates {len(paragraphs)} rule{'s' * (len(paragraphs) > 1)} of its contract:"
        wrapper = textwrap.TextWrapper(110, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        paragraphs = [wrapper.fill(text) for text in paragraphs]
        raise AssertionError("\n\n".join([heading, *paragraphs]))

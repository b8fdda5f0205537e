"""Schedules and phases: their values, their needs, what changes no digit, and the state between steps."""

import copy
import itertools
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from helpers.fakes import full_batch

from fireopd.filters import AllOf, FilterSequence, KeepAll, LengthFilter, ScheduledFilter, TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.objectives import GroupRewardReverseKL, ObjectiveSequence, ReverseKL, ScheduledObjective, SkewKL
from fireopd.types.schedule import numeric_settings, value_at
from fireopd.types.strategy_state import Remembers, remembered
from fireopd.weighters import EntropyWeighter, ScheduledWeighter, TokenWeighter, UniformWeighter, WindowWeighter

ANNEALED = {"from": 0.4, "to": 0.0, "steps": 100}


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (ANNEALED, {0: 0.4, 50: 0.2, 100: 0.0, 500: 0.0}),
        (ANNEALED | {"shape": "cosine"}, {0: 0.4, 25: 0.2 * (1 + math.cos(math.pi / 4)), 50: 0.2, 100: 0.0}),
        (ANNEALED | {"start": 10}, {0: 0.4, 10: 0.4, 60: 0.2, 110: 0.0}),
        ({"from": 0.1, "to": 0.3, "steps": 3}, {3: 0.3, 4: 0.3}),
    ],
)
def test_a_schedule_goes_from_one_value_to_the_other(schedule, values):
    for step, value in values.items():
        assert value_at(schedule, step) == pytest.approx(value, rel=1e-12, abs=1e-15)
    assert value_at(schedule, 0) == schedule["from"]
    assert value_at(schedule, 1000) == schedule["to"], "to the last digit"
    steps = [value_at(schedule, step) for step in range(120)]
    rising = schedule["to"] > schedule["from"]
    assert all((later >= earlier) if rising else (later <= earlier) for earlier, later in itertools.pairwise(steps))


def test_numbers_alone_accept_a_schedule():
    assert numeric_settings(TeacherLikelihoodFilter) == {"drop_fraction": float}
    assert numeric_settings(LengthFilter) == {"min_tokens": int, "max_tokens": int}
    assert "state" not in numeric_settings(Counting)


def test_integers_are_rounded_and_values_are_those_of_the_strategy_at_that_step():
    weighter = ScheduledWeighter(WindowWeighter(), {"size": {"from": 1, "to": 4, "steps": 10}})
    assert [weighter.at(step).size for step in (0, 1, 2, 5, 9, 10)] == [1, 1, 2, 2, 4, 4]
    batch = replace(full_batch(), policy_version=7)
    assert torch.equal(weighter(batch.view_for(weighter)), WindowWeighter(3)(batch))


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ({"from": 0.4, "to": 1.0, "steps": 5}, r"drop_fraction must be in \[0, 1\), got 1.0 at step 5"),
        ({"from": -0.1, "to": 0.5, "steps": 5}, r"drop_fraction must be in \[0, 1\), got -0.1 at step 0"),
        ({"from": 0.4, "to": 0.5, "steps": 0}, "drop_fraction must change in at least 1 step"),
        ({"from": 0.4, "to": math.inf, "steps": 1}, "drop_fraction must change between finite numbers"),
        ({"from": 0.4, "to": 0.5, "steps": 1, "start": -1}, "drop_fraction must start to change at step 0 or later"),
    ],
)
def test_a_schedule_outside_the_range_of_its_setting_is_refused(schedule, problem):
    with pytest.raises(ValueError, match=problem):
        ScheduledFilter(TeacherLikelihoodFilter(), {"drop_fraction": schedule})


@dataclass(frozen=True)
class Even(TokenWeighter):
    """Accepts no 3, so that both ends of a schedule are valid and its middle is not."""

    number: int = 2

    def __post_init__(self):
        if self.number == 3:
            raise ValueError("number must not be 3, got 3")

    def __call__(self, batch):
        return torch.ones(batch.tokens.shape)


def test_values_between_the_ends_are_checked_too():
    with pytest.raises(ValueError, match="number must not be 3, got 3 at step 3 of its schedule"):
        ScheduledWeighter(Even(), {"number": {"from": 2, "to": 4, "steps": 10, "start": 0}})


def test_settings_that_are_no_numbers_or_unknown_are_refused():
    for name in ("per_teacher", "share"):
        with pytest.raises(ValueError, match=f"{name} must be a numeric setting of TeacherLikelihoodFilter"):
            ScheduledFilter(TeacherLikelihoodFilter(), {name: ANNEALED})


@pytest.mark.parametrize(
    ("parts", "steps", "problem"),
    [
        ([], [], "objectives must be at least one"),
        ([ReverseKL()], [5], "switch_steps must be 0 steps for 1 objectives"),
        ([ReverseKL(), SkewKL(), ReverseKL()], [5, 5], "switch_steps must increase and be at least 1"),
        ([ReverseKL(), SkewKL()], [0], "switch_steps must increase and be at least 1"),
    ],
)
def test_phases_without_an_order_are_refused(parts, steps, problem):
    with pytest.raises(ValueError, match=problem):
        ObjectiveSequence(parts, steps)


def test_a_sequence_needs_what_any_phase_needs():
    phases = ObjectiveSequence([ReverseKL(), ScheduledObjective(SkewKL(), {}), GroupRewardReverseKL()], [10, 20])
    assert phases.requires == {"teacher_logprobs", "student_logprobs", "rewards"}
    assert (phases.direct, phases.needs_groups, phases.by_trajectory) == (True, True, False)
    assert Method(objective=phases).direct
    assert [type(phases.at(step)) for step in (0, 9, 10, 19, 20)] == [
        ReverseKL,
        ReverseKL,
        SkewKL,
        SkewKL,
        GroupRewardReverseKL,
    ]
    assert phases.exact_for == ReverseKL().exact_for


def test_neutral_schedules_and_one_phase_change_no_digit():
    fixed = Method(TeacherLikelihoodFilter(0.3), EntropyWeighter(), SkewKL(0.2))
    constant = {"from": 0.3, "to": 0.3, "steps": 7}
    changing = Method(
        FilterSequence([AllOf([ScheduledFilter(TeacherLikelihoodFilter(0.3), {"drop_fraction": constant})])]),
        EntropyWeighter(),
        ScheduledObjective(SkewKL(0.2), {"skew": {"from": 0.2, "to": 0.2, "steps": 7}}),
    )
    for version in (0, 3, 50):
        batch = replace(full_batch(), policy_version=version)
        one, other = fixed.targets(batch), changing.targets(batch)
        for name in ("keep", "mask", "weight", "advantage", "importance", "coefficient"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert fixed.reasons(batch) == changing.reasons(batch)


def test_current_values_are_reported_by_their_place():
    annealed = ScheduledFilter(TeacherLikelihoodFilter(), {"drop_fraction": ANNEALED})
    method = Method(
        AllOf([LengthFilter(), annealed]), UniformWeighter(), ObjectiveSequence([ReverseKL(), SkewKL()], [30])
    )
    place = "schedule/trajectory_filter/filters/1/drop_fraction"
    assert method.changes(25) == {place: pytest.approx(0.3), "schedule/objective/phase": 0.0}
    assert method.changes(30)["schedule/objective/phase"] == 1.0
    assert Method(annealed).at(25).trajectory_filter.drop_fraction == pytest.approx(0.3)
    assert Method(KeepAll()).changes(3) == {}


@dataclass(frozen=True)
class Counting(Remembers, TokenWeighter):
    """Gives the weight `factor` times the number of batches so far."""

    factor: float = 1.0
    state: SimpleNamespace = remembered(batches=0)  # noqa: RUF009

    def __call__(self, batch):
        self.state.batches += 1
        return torch.full(batch.tokens.shape, self.factor * self.state.batches)


def test_a_run_that_stops_in_mid_schedule_continues_with_the_same_answers():
    def made():
        return ScheduledWeighter(Counting(), {"factor": {"from": 1.0, "to": 2.0, "steps": 8}})

    def answers(weighter, versions):
        return [
            weighter(replace(full_batch(), policy_version=version, signals={}))[0, 0].item() for version in versions
        ]

    whole = answers(made(), range(10))
    assert whole == [value_at({"from": 1.0, "to": 2.0, "steps": 8}, step) * (step + 1) for step in range(10)]
    for stop in (1, 4, 9):
        first, second = made(), made()
        assert answers(first, range(stop)) == whole[:stop]
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        assert answers(second, range(stop, 10)) == whole[stop:]

"""The built-in filters, weighters and objectives, and instances of those that do nothing with default settings."""

from fireopd.cli.entry_points import load_plugins
from fireopd.filters import AllOf, FilterSequence, LengthFilter, ScheduledFilter, TeacherLikelihoodFilter
from fireopd.objectives import ObjectiveSequence, ReverseKL, ScheduledObjective, SkewKL
from fireopd.weighters import EntropyWeighter, ProductOf, ScheduledWeighter, WeighterSequence, WindowWeighter

GROUPS = ("fireopd.filters", "fireopd.weighters", "fireopd.objectives")
BUILT_IN = [plugin for plugin in load_plugins() if plugin.group in GROUPS and plugin.package == "fireopd"]
WARM_UP = {"skew": {"from": 0.1, "to": 0.9, "steps": 10}}
GROWTH = {"size": {"from": 1, "to": 4, "steps": 10}}
SCHEDULE = {"drop_fraction": {"from": 0.4, "to": 0.1, "steps": 200, "shape": "cosine"}}
EXAMPLES = {
    "AllOf": AllOf([TeacherLikelihoodFilter(0.4, per_teacher=True), LengthFilter(2, 6, only_finished=True)]),
    "FilterSequence": FilterSequence([LengthFilter(2, 6), ScheduledFilter(TeacherLikelihoodFilter(), SCHEDULE)], [50]),
    "ObjectiveSequence": ObjectiveSequence([ScheduledObjective(SkewKL(), WARM_UP), ReverseKL()], [100]),
    "ProductOf": ProductOf([EntropyWeighter(2.0, 0.0), EntropyWeighter(0.0, 1.0)]),
    "WeighterSequence": WeighterSequence([ScheduledWeighter(WindowWeighter(), GROWTH), EntropyWeighter()], [100]),
}
"""Instances of compositions, which do nothing with default settings."""

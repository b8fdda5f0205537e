"""Token weighters: the base class in `base.py`, one family of methods per file."""

from fireopd.weighters.base import TokenWeighter, UniformWeighter
from fireopd.weighters.composition import ProductOf
from fireopd.weighters.disagreement import AcceptedProposalWeighter, DisagreementWeighter
from fireopd.weighters.entropy import EntropyWeighter
from fireopd.weighters.position import PositionWeighter, WindowWeighter
from fireopd.weighters.prefix_discrepancy import PrefixDiscrepancyWeighter
from fireopd.weighters.schedule import ScheduledWeighter, WeighterSequence
from fireopd.weighters.teacher_likelihood import TeacherLikelihoodWeighter
from fireopd.weighters.token_selection import (
    AgreementWeighter,
    HardEntropyWeighter,
    PhasedEntropyWeighter,
    TeachabilityWeighter,
    UncertainOrDivergentWeighter,
    UncertainTokenWeighter,
    UnlikelyTokenWeighter,
)
from fireopd.weighters.topk_overlap import OverlapDecayWeighter

__all__ = [
    "AcceptedProposalWeighter",
    "AgreementWeighter",
    "DisagreementWeighter",
    "EntropyWeighter",
    "HardEntropyWeighter",
    "OverlapDecayWeighter",
    "PhasedEntropyWeighter",
    "PositionWeighter",
    "PrefixDiscrepancyWeighter",
    "ProductOf",
    "ScheduledWeighter",
    "TeachabilityWeighter",
    "TeacherLikelihoodWeighter",
    "TokenWeighter",
    "UncertainOrDivergentWeighter",
    "UncertainTokenWeighter",
    "UniformWeighter",
    "UnlikelyTokenWeighter",
    "WeighterSequence",
    "WindowWeighter",
]

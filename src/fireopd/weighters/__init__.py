"""Token weighters, `base.py` first; one family of methods in each of the other files."""

from fireopd.weighters.base import TokenWeighter, UniformWeighter
from fireopd.weighters.compositions import ProductOf
from fireopd.weighters.entropies import EntropyWeighter
from fireopd.weighters.likelihoods import TeacherLikelihoodWeighter
from fireopd.weighters.overlaps import OverlapDecayWeighter
from fireopd.weighters.positions import PositionWeighter, WindowWeighter
from fireopd.weighters.selections import (
    HardEntropyWeighter,
    PhasedEntropyWeighter,
    TeachabilityWeighter,
    UncertainOrDivergentWeighter,
)

__all__ = [
    "EntropyWeighter",
    "HardEntropyWeighter",
    "OverlapDecayWeighter",
    "PhasedEntropyWeighter",
    "PositionWeighter",
    "ProductOf",
    "TeachabilityWeighter",
    "TeacherLikelihoodWeighter",
    "TokenWeighter",
    "UncertainOrDivergentWeighter",
    "UniformWeighter",
    "WindowWeighter",
]

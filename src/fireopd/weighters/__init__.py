"""Token weighters, `base.py` first; one family of methods in each of the other files."""

from fireopd.weighters.base import TokenWeighter, UniformWeighter
from fireopd.weighters.compositions import ProductOf
from fireopd.weighters.entropies import EntropyWeighter

__all__ = ["EntropyWeighter", "ProductOf", "TokenWeighter", "UniformWeighter"]

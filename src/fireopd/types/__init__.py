"""The data of one training step, in the order in which it comes into being; `targets.py` has the last of it.

One convention holds everywhere: index t of every per-token tensor is about token t (the one shift between logits and
tokens is in `scoring.py`); nats; float32; 0 off the mask; padding on the right. Dimension letters: B rows on this rank,
N rows of the global batch, L tokens.
"""

from fireopd.types.prompts import Prompt
from fireopd.types.responses import Response, Sampling
from fireopd.types.rollouts import RolloutBatch
from fireopd.types.scores import ScoredBatch, TokenScores
from fireopd.types.targets import Targets

__all__ = ["Prompt", "Response", "RolloutBatch", "Sampling", "ScoredBatch", "Targets", "TokenScores"]

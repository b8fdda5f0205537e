"""Data types of a training step, in the order of their creation: prompts, responses, rollouts, scores, targets.

Conventions: index t of a per-token tensor refers to token t (`fireopd.models.scorer` shifts the logits).
Log-probabilities, entropies and divergences are in nats. Tensors are float32, 0 off the mask, padded on the right.
Dimension letters: B rows on this rank, N rows of the global batch, L tokens.
"""

from fireopd.types.prompts import Prompt
from fireopd.types.responses import Response, Sampling, Source
from fireopd.types.rollouts import RolloutBatch
from fireopd.types.scores import Population, ScoredBatch, TokenScores
from fireopd.types.targets import Targets

__all__ = ["Population", "Prompt", "Response", "RolloutBatch", "Sampling", "ScoredBatch", "Source", "Targets"]
__all__ += ["TokenScores"]

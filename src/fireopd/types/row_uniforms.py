"""Random numbers for strategies, a function of seed, step and trajectory only."""

import hashlib

import torch
from torch import Tensor

from fireopd.types.scores import ScoredBatch

__all__ = ["row_uniforms"]


def row_uniforms(batch: ScoredBatch, strategy: object, seed: int) -> Tensor:
    """Return float64 [N], uniform in [0, 1): one number per trajectory.

    The number is a hash of the strategy's class, the seed, the policy version and the tokens. It does not depend on the
    order of rows, padding or the number of processes. Trajectories with equal tokens get equal numbers.
    """
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    ends = torch.where(batch.response_mask, places + 1, 0).max(-1).values.tolist()
    uniforms = []
    for tokens, end in zip(batch.tokens.tolist(), ends, strict=True):
        name = f"{type(strategy).__name__}/{seed}/{batch.policy_version}/{','.join(map(str, tokens[:end]))}"
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
        uniforms.append((number >> 11) / 2**53)
    return torch.tensor(uniforms, dtype=torch.float64, device=batch.tokens.device)

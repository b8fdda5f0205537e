"""Random numbers for strategies: decided by seed, step and the trajectory itself, and by nothing else."""

import hashlib

import torch
from torch import Tensor

from fireopd.types import ScoredBatch


def row_uniforms(batch: ScoredBatch, strategy: object, seed: int) -> Tensor:
    """Return float64 [N], uniform in [0, 1): one number for each trajectory.

    The same whatever the order of the rows, their padding and the number of processes. Trajectories of the same tokens
    get the same number; the next step gives them another, and so does a strategy of another class.
    """
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    ends = torch.where(batch.response_mask, places + 1, 0).max(-1).values.tolist()
    uniforms = []
    for tokens, end in zip(batch.tokens.tolist(), ends, strict=True):
        name = f"{type(strategy).__name__}/{seed}/{batch.policy_version}/{','.join(map(str, tokens[:end]))}"
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
        uniforms.append((number >> 11) / 2**53)
    return torch.tensor(uniforms, dtype=torch.float64, device=batch.tokens.device)

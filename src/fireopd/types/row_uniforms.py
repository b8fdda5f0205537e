"""Random numbers for strategies, a function of seed, step and trajectory only."""

import hashlib

import torch
from torch import Tensor

from fireopd.types.scores import ScoredBatch

__all__ = ["row_uniforms", "token_uniforms"]


def row_uniforms(batch: ScoredBatch, strategy: object, seed: int) -> Tensor:
    """Return float64 [N], uniform in [0, 1): one number per trajectory.

    The number is a hash of the strategy's class, the seed, the policy version and the tokens. It does not depend on the
    order of rows, padding or the number of processes. Trajectories with equal tokens get equal numbers.
    """
    uniforms = [(number >> 11) / 2**53 for number in _hashes(batch, strategy, seed)]
    return torch.tensor(uniforms, dtype=torch.float64, device=batch.tokens.device)


def token_uniforms(batch: ScoredBatch, strategy: object, seed: int) -> Tensor:
    """Return float64 [N, L], uniform in [0, 1) at response tokens and 0 elsewhere, from the hash of `row_uniforms`."""
    uniforms = torch.zeros(batch.tokens.shape, dtype=torch.float64)
    lengths = batch.lengths.tolist()
    for row, (number, length) in enumerate(zip(_hashes(batch, strategy, seed), lengths, strict=True)):
        drawn = torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(number >> 1))
        uniforms[row, batch.response_mask[row].cpu()] = drawn
    return uniforms.to(batch.tokens.device)


def _hashes(batch: ScoredBatch, strategy: object, seed: int) -> list[int]:
    """Return a number of 64 bits per trajectory; given tokens between response tokens do not count."""
    mask = batch.response_mask
    counted = (mask | (mask.cumsum(-1) == 0)) & mask.any(-1, keepdim=True)
    numbers = []
    for tokens, of_row in zip(batch.tokens.cpu(), counted.cpu(), strict=True):
        name = f"{type(strategy).__name__}/{seed}/{batch.policy_version}/{','.join(map(str, tokens[of_row].tolist()))}"
        numbers.append(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))
    return numbers

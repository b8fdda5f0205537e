"""Tokens among which an engine samples: its log-probabilities within the rounding of its own computation."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fireopd.engines import RolloutEngine
from fireopd.engines.hf.sampling import truncate

__all__ = ["Candidates"]


@dataclass(frozen=True)
class Candidates:
    """Distributions of the student before the tokens of a response, truncated as an engine truncates them.

    The student's log-probabilities and the engine's differ by up to its `max_probe_gap`. A token whose probability is
    that close to the limit of top_k or top_p may be a candidate of one and not of the other.
    """

    all_tokens: Tensor
    """Log-distributions after the temperature, float64 [T, V]."""
    engine: RolloutEngine

    def gap(self, tokens: Tensor, logprobs: Tensor) -> float:
        """Return the largest distance of log-probabilities [T] of tokens [T] from those of the candidates, nats.

        It is infinite for a token that is no candidate.
        """
        chosen = self.all_tokens.gather(-1, tokens[:, None])[:, 0]
        slack = 2 * self.engine.max_probe_gap
        most, fewest = self._limit(1 + slack) - slack, self._limit(1 - slack) + slack
        high = chosen - self._log_mass(fewest, tokens)
        low = torch.where(chosen >= most[:, 0], chosen - self._log_mass(most, tokens), torch.inf)
        return torch.maximum(low - logprobs, logprobs - high).clamp(min=0).max().item()

    def surprise(self, tokens: Tensor) -> tuple[float, float]:
        """Return the sum of the log-probabilities of tokens [T] above their expectations, and its variance."""
        candidates = truncate(self.all_tokens, self.engine.sampling).log_softmax(-1)
        logprobs = candidates.masked_fill(candidates.isinf(), 0.0)
        mean, square = ((candidates.exp() * power).sum(-1) for power in (logprobs, logprobs**2))
        return (logprobs.gather(-1, tokens[:, None])[:, 0] - mean).sum().item(), (square - mean**2).sum().item()

    def _limit(self, factor: float) -> Tensor:
        """Return the smallest log-probability of the candidates with another top_p, [T, 1]."""
        sampling = self.engine.sampling
        if not sampling.truncated:
            return torch.full_like(self.all_tokens[:, :1], -torch.inf)
        if sampling.top_p < 1:
            sampling = replace(sampling, top_p=min(1.0, factor * sampling.top_p))
        kept = truncate(self.all_tokens, sampling)
        return kept.masked_fill(kept.isinf(), torch.inf).amin(-1, keepdim=True)

    def _log_mass(self, limit: Tensor, tokens: Tensor) -> Tensor:
        """Return the log of the total probability of tokens above a limit, the given ones included, [T]."""
        inside = (self.all_tokens >= limit).scatter(-1, tokens[:, None], value=True)
        return self.all_tokens.masked_fill(~inside, -torch.inf).logsumexp(-1)

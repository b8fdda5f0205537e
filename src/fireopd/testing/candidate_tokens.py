"""Tokens among which an engine samples: its log-probabilities within the rounding of its own computation."""

import math
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

    def gaps(self, tokens: Tensor, logprobs: Tensor) -> Tensor:
        """Return the distance of each log-probability from that of a candidate, nats [T]; infinite for other tokens.

        Args:
            tokens: int64 [T].
            logprobs: float64 [T].
        """
        chosen = self.all_tokens.gather(-1, tokens[:, None])[:, 0]
        most, fewest = self._limits()
        high = chosen - self._log_mass(fewest, tokens)
        low = torch.where(chosen >= most[:, 0], chosen - self._log_mass(most, tokens), torch.inf)
        return torch.maximum(low - logprobs, logprobs - high).clamp(min=0)

    def surprise(self, tokens: Tensor) -> tuple[float, float]:
        """Return the sum of the log-probabilities of tokens [T] above their expectations, and its variance.

        Places where rounding decides whether a token is a candidate are left out.
        """
        most, fewest = self._limits()
        certain = ((self.all_tokens >= most) == (self.all_tokens >= fewest)).all(-1)
        candidates = truncate(self.all_tokens, self.engine.sampling).log_softmax(-1)
        logprobs = candidates.masked_fill(candidates.isinf(), 0.0)
        mean, square = ((candidates.exp() * power).sum(-1) for power in (logprobs, logprobs**2))
        above = logprobs.gather(-1, tokens[:, None])[:, 0] - mean
        return above[certain].sum().item(), (square - mean**2)[certain].sum().item()

    def _limits(self) -> tuple[Tensor, Tensor]:
        """Return the smallest log-probabilities of the most and of the fewest candidates within rounding, [T, 1]."""
        slack = 2 * self.engine.max_probe_gap
        return self._limit(math.exp(-slack)) - slack, self._limit(math.exp(slack)) + slack

    def _limit(self, factor: float) -> Tensor:
        """Return the smallest log-probability of the candidates if top_p excludes `factor` of its mass, [T, 1]."""
        sampling = self.engine.sampling
        if not sampling.truncated:
            return torch.full_like(self.all_tokens[:, :1], -torch.inf)
        if sampling.top_p < 1:
            sampling = replace(sampling, top_p=max(1e-6, 1 - factor * (1 - sampling.top_p)))
        kept = truncate(self.all_tokens, sampling)
        return kept.masked_fill(kept.isinf(), torch.inf).amin(-1, keepdim=True)

    def _log_mass(self, limit: Tensor, tokens: Tensor) -> Tensor:
        """Return the log of the total probability of tokens above a limit, the given ones included, [T]."""
        inside = (self.all_tokens >= limit).scatter(-1, tokens[:, None], value=True)
        return self.all_tokens.masked_fill(~inside, -torch.inf).logsumexp(-1)

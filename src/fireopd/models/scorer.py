"""Log-probabilities and entropies of tokens under a causal LM, without ever holding a [tokens, vocabulary] tensor.

This is the only place where logits are shifted against tokens: what the model says at position t - 1 is about token t.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_utils import PreTrainedModel

from fireopd.distributed import collectives
from fireopd.errors import UserError
from fireopd.models.chunked_logprobs import token_logprobs
from fireopd.models.distributions import Companion, DistributionComparison, log_distribution
from fireopd.models.token_budget import by_token_budget
from fireopd.progress import track
from fireopd.types import RolloutBatch, TokenScores

MAX_DISCREPANCY = 0.05
"""How far scoring by chunks may be from a model's own logits, nats: far above rounding, far below a missed soft-cap."""

CHUNK_LOGITS = 2**25
"""Logits held at once where nothing else is set: 128 MiB of float32, 220 tokens of a vocabulary of 152,000."""


class CausalScorer(nn.Module):
    """A causal LM whose forward returns the scores of given tokens instead of logits.

    At most `chunk_logits` logits are held at once, forward and backward, however long the rows are and however large
    the vocabulary is. The head runs inside this module's forward, where a sharded model has its weights gathered.
    """

    def __init__(self, model: PreTrainedModel, chunk_logits: int = CHUNK_LOGITS) -> None:
        """Wrap a model.

        Args:
            model: any Hugging Face causal LM whose logits are its head applied to its last hidden states.
            chunk_logits: logits held at once; those of one token at least.
        """
        super().__init__()
        if chunk_logits < 1:
            raise ValueError(f"chunk_logits must be at least 1, got {chunk_logits}")
        self.model = model
        self.chunk_logits = chunk_logits
        self.sharded = False

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        keep_states: bool = False,
        comparison: DistributionComparison | None = None,
    ) -> TokenScores:
        """Score tokens.

        Args:
            tokens: int64 [B, L], padded on the right. Causal attention never looks at the padding.
            mask: bool [B, L]. Tokens to score; the first of a row has no context and is scored 0.
            temperature: divides the logits, those of a comparison's teachers too.
            entropy: whether the entropies are wanted.
            keep_states: whether the last hidden states before the scored tokens are wanted.
            comparison: what to measure of this model's distributions and those of teachers, of the same rows.

        Returns:
            Scores of [B, L], 0 off the mask, differentiable.
        """
        hidden = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
        scored = mask.clone()
        scored[:, 0] = False
        read: dict[str, Tensor] = {}
        for here, companion in self._groups(scored, comparison):
            states, chosen = hidden[here[:, 1:]], tokens[here]
            if companion is None:
                values = self._likelihoods(states, chosen, temperature, entropy)
            else:
                values = self._compared(states, chosen, companion, temperature, entropy)
            for name, value in values.items():
                place = read.get(name, torch.zeros(tokens.shape, dtype=value.dtype, device=tokens.device))
                read[name] = place.masked_scatter(here, value)
        return TokenScores(
            logprobs=read.pop("logprobs"),
            entropy=read.pop("entropy", None),
            comparisons=read,
            hidden_states=hidden[scored[:, 1:]].split(scored.sum(-1).tolist()) if keep_states else None,
        )

    @staticmethod
    def _groups(scored: Tensor, comparison: DistributionComparison | None) -> Iterator[tuple[Tensor, Companion | None]]:
        """Yield the tokens to score, bool [B, L], of each teacher where student and teachers are compared, else all."""
        if comparison is None:
            yield scored, None
        else:
            yield from ((scored & rows[:, None], companion) for rows, companion in comparison.by_head())

    def _likelihoods(self, states: Tensor, chosen: Tensor, temperature: float, entropy: bool) -> dict[str, Tensor]:
        head: Any = self.model.get_output_embeddings()
        logprobs, entropies = token_logprobs(
            states,
            head.weight,
            head.bias,
            chosen,
            temperature=temperature,
            entropy=entropy,
            chunk_logits=self.chunk_logits,
        )
        return {"logprobs": logprobs} if entropies is None else {"logprobs": logprobs, "entropy": entropies}

    def _compared(
        self, states: Tensor, chosen: Tensor, companion: Companion, temperature: float, entropy: bool
    ) -> dict[str, Tensor]:
        """Take a measure of whole distributions, some of them at a time, and again in the backward pass."""
        head: Any = self.model.get_output_embeddings()
        size = max(1, self.chunk_logits // len(head.weight))

        def read(states: Tensor, chosen: Tensor, companion: Companion) -> dict[str, Tensor]:
            """Return float [T] by name."""
            own = log_distribution(head(states), temperature)
            values = {"logprobs": own.gather(-1, chosen[:, None]).squeeze(-1)}
            if entropy:
                values["entropy"] = torch.special.entr(own.exp()).sum(-1)
            return {**values, **companion.compare(own, temperature)}

        parts = zip(states.split(size), chosen.split(size), companion.split(size), strict=True)
        chunks = [checkpoint(read, *part, use_reentrant=False) for part in parts]
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}

    @torch.no_grad()
    def discrepancy(self, tokens: Tensor) -> float:
        """Return the largest difference, in nats, to the model's own logits on int64 [1, L] tokens.

        It is large for an architecture that changes its logits after the head, which scoring by chunks would miss.
        """
        ours = self(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs[:, 1:]
        own = self.model(input_ids=tokens, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        return (ours - own.gather(-1, tokens[:, 1:, None]).squeeze(-1)).abs().max().item()


@torch.no_grad()
def score_rollouts(
    scorer: CausalScorer,
    rollouts: RolloutBatch,
    *,
    entropy: bool,
    token_budget: int,
    keep_states: bool = False,
    comparison: DistributionComparison | None = None,
) -> TokenScores:
    """Score the responses of a batch, micro-batch by micro-batch.

    Args:
        scorer: a student or a teacher.
        rollouts: B trajectories.
        entropy: whether the entropies are wanted.
        token_budget: tokens a micro-batch, padding included.
        keep_states: whether the last hidden states are wanted.
        comparison: what to measure of the scorer and the teachers of the B rows.

    Returns:
        Scores of [B, L] in the batch's own order.
    """
    like = rollouts.sampling_logprobs
    logprobs, compared = torch.zeros_like(like), dict[str, Tensor]()
    entropies = torch.zeros_like(like) if entropy else None
    states = [like.new_zeros(0)] * len(like)
    cuts = by_token_budget(rollouts.attention_mask.sum(-1), token_budget)
    # A sharded model is gathered by all processes or by none: those with fewer micro-batches score a filler.
    fillers = collectives.all_reduce_max(len(cuts), like.device) - len(cuts) if scorer.sharded else 0
    for rows in track(cuts, "scoring"):
        part = rollouts.select(rows)
        scores = scorer(
            part.tokens,
            part.response_mask,
            temperature=rollouts.sampling.temperature,
            entropy=entropy,
            keep_states=keep_states,
            comparison=comparison.select(rows) if comparison else None,
        )
        width = part.tokens.shape[1]
        logprobs[rows, :width] = scores.logprobs.to(like.dtype)
        if entropies is not None:
            entropies[rows, :width] = scores.entropy.to(like.dtype)
        for name, values in scores.comparisons.items():
            compared.setdefault(name, torch.zeros_like(like))[rows, :width] = values.to(like.dtype)
        for row, own in zip(rows.tolist(), scores.hidden_states or (), strict=keep_states):
            states[row] = own
    filler = rollouts.tokens.new_zeros(1, 2)
    for _ in range(fillers):
        scorer(filler, torch.ones_like(filler, dtype=torch.bool), entropy=entropy)
    return TokenScores(logprobs, entropies, compared, tuple(states) if keep_states else None)


def check_scorer(key: str, name: str, scorer: CausalScorer) -> None:
    """Score one probe, and compare it with the model's own logits.

    Raises:
        UserError: if the answer is not finite, or not what the model itself would say.
    """
    device = scorer.model.device
    probe = torch.arange(min(16, scorer.model.get_output_embeddings().weight.shape[0]), device=device)[None]
    gap = scorer.discrepancy(probe)
    if not gap <= MAX_DISCREPANCY:
        problem = f"scores of a probe differ from the model's own logits by {gap:.3g} nats"
        remedy = "use a model with finite weights whose logits are its output head applied to its last hidden states"
        raise UserError(key, name, problem, remedy)

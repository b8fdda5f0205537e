"""Log-probabilities and entropies of tokens under a causal LM, without ever holding a [tokens, vocabulary] tensor.

This is the only place where logits are shifted against tokens: what the model says at position t - 1 is about token t.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_utils import PreTrainedModel

from fireopd import collectives
from fireopd.batching import by_token_budget
from fireopd.types import RolloutBatch, TokenScores


class CausalScorer(nn.Module):
    """A causal LM whose forward returns the scores of given tokens instead of logits.

    The head is applied to `chunk_tokens` hidden states at a time, and again in the backward pass, so that memory is
    `chunk_tokens` x vocabulary however long the rows are. The head runs inside this module's forward, where a sharded
    model has its weights gathered.
    """

    def __init__(self, model: PreTrainedModel, chunk_tokens: int = 1024) -> None:
        """Wrap a model.

        Args:
            model: any Hugging Face causal LM whose logits are its head applied to its last hidden states.
            chunk_tokens: tokens that go through the head at once.
        """
        super().__init__()
        if chunk_tokens < 1:
            raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.sharded = False

    def forward(self, tokens: Tensor, mask: Tensor, *, temperature: float = 1.0, entropy: bool = False) -> TokenScores:
        """Score tokens.

        Args:
            tokens: int64 [B, L], padded on the right. Causal attention never looks at the padding.
            mask: bool [B, L]. Tokens to score; the first of a row has no context and is scored 0.
            temperature: divides the logits.
            entropy: whether the entropies are wanted.

        Returns:
            Scores of [B, L], 0 off the mask, differentiable.
        """
        hidden = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        scored = mask.clone()
        scored[:, 0] = False
        states, chosen = hidden[:, :-1][scored[:, 1:]], tokens[scored]
        pairs = zip(states.split(self.chunk_tokens), chosen.split(self.chunk_tokens), strict=True)
        chunks = [checkpoint(self._head, *pair, temperature, entropy, use_reentrant=False) for pair in pairs]
        logprobs, entropies = (torch.cat(part) for part in zip(*chunks, strict=True))
        place = torch.zeros(tokens.shape, dtype=logprobs.dtype, device=tokens.device)
        return TokenScores(
            logprobs=place.masked_scatter(scored, logprobs),
            entropy=place.masked_scatter(scored, entropies) if entropy else None,
        )

    def _head(self, states: Tensor, chosen: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
        logits = self.model.get_output_embeddings()(states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        log_distribution = logits.log_softmax(-1)
        logprobs = log_distribution.gather(-1, chosen[:, None]).squeeze(-1)
        if not entropy:
            return logprobs, logprobs.new_zeros(0)
        return logprobs, torch.special.entr(log_distribution.exp()).sum(-1)

    @torch.no_grad()
    def discrepancy(self, tokens: Tensor) -> float:
        """Return the largest difference, in nats, to the model's own logits on int64 [1, L] tokens.

        It is large for an architecture that changes its logits after the head, which scoring by chunks would miss.
        """
        ours = self(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs[:, 1:]
        own = self.model(input_ids=tokens, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        return (ours - own.gather(-1, tokens[:, 1:, None]).squeeze(-1)).abs().max().item()


@torch.no_grad()
def score_rollouts(scorer: CausalScorer, rollouts: RolloutBatch, *, entropy: bool, token_budget: int) -> TokenScores:
    """Score the responses of a batch, micro-batch by micro-batch.

    Args:
        scorer: a student or a teacher.
        rollouts: B trajectories.
        entropy: whether the entropies are wanted.
        token_budget: tokens a micro-batch, padding included.

    Returns:
        Scores of [B, L] in the batch's own order.
    """
    logprobs = torch.zeros_like(rollouts.sampling_logprobs)
    entropies = torch.zeros_like(logprobs) if entropy else None
    cuts = by_token_budget(rollouts.attention_mask.sum(-1), token_budget)
    # A sharded model is gathered by all processes or by none: those with fewer micro-batches score a filler.
    fillers = collectives.largest(len(cuts), logprobs.device) - len(cuts) if scorer.sharded else 0
    for rows in cuts:
        part = rollouts.select(rows)
        scores = scorer(part.tokens, part.response_mask, temperature=rollouts.sampling.temperature, entropy=entropy)
        width = part.tokens.shape[1]
        logprobs[rows, :width] = scores.logprobs.to(logprobs.dtype)
        if entropies is not None:
            entropies[rows, :width] = scores.entropy.to(logprobs.dtype)
    filler = rollouts.tokens.new_zeros(1, 2)
    for _ in range(fillers):
        scorer(filler, torch.ones_like(filler, dtype=torch.bool), entropy=entropy)
    return TokenScores(logprobs, entropies)

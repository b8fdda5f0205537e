"""Log-probabilities and entropies of tokens under a causal LM, without ever holding a [tokens, vocabulary] tensor.

This is the only place where logits are shifted against tokens: what the model says at position t - 1 is about token t.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_utils import PreTrainedModel

from fireopd import collectives
from fireopd.batching import by_token_budget
from fireopd.distributions import Companion, Comparison, log_distribution
from fireopd.progress import counted
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

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        keep_states: bool = False,
        comparison: Comparison | None = None,
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
        everybody = [(torch.ones_like(scored[:, 0]), None)]
        read: dict[str, Tensor] = {}
        for rows, companion in comparison.by_head() if comparison else everybody:
            here = scored & rows[:, None]
            parts = hidden[here[:, 1:]].split(self.chunk_tokens), tokens[here].split(self.chunk_tokens)
            companions = companion.split(self.chunk_tokens) if companion else [None] * len(parts[0])
            chunks = [
                checkpoint(self._head, *chunk, temperature, entropy, use_reentrant=False)
                for chunk in zip(*parts, companions, strict=True)
            ]
            for name in chunks[0]:
                values = torch.cat([chunk[name] for chunk in chunks])
                place = read.get(name, torch.zeros(tokens.shape, dtype=values.dtype, device=tokens.device))
                read[name] = place.masked_scatter(here, values)
        return TokenScores(
            logprobs=read.pop("logprobs"),
            entropy=read.pop("entropy", None),
            compared=read,
            states=hidden[scored[:, 1:]].split(scored.sum(-1).tolist()) if keep_states else None,
        )

    def _head(
        self, states: Tensor, chosen: Tensor, companion: Companion | None, temperature: float, entropy: bool
    ) -> dict[str, Tensor]:
        own = log_distribution(self.model.get_output_embeddings()(states), temperature)
        read = {"logprobs": own.gather(-1, chosen[:, None]).squeeze(-1)}
        if entropy:
            read["entropy"] = torch.special.entr(own.exp()).sum(-1)
        if companion is not None:
            read |= companion.compare(own, temperature)
        return read

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
    comparison: Comparison | None = None,
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
    fillers = collectives.largest(len(cuts), like.device) - len(cuts) if scorer.sharded else 0
    for rows in counted(cuts, "scoring"):
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
        for name, values in scores.compared.items():
            compared.setdefault(name, torch.zeros_like(like))[rows, :width] = values.to(like.dtype)
        for row, own in zip(rows.tolist(), scores.states or (), strict=keep_states):
            states[row] = own
    filler = rollouts.tokens.new_zeros(1, 2)
    for _ in range(fillers):
        scorer(filler, torch.ones_like(filler, dtype=torch.bool), entropy=entropy)
    return TokenScores(logprobs, entropies, compared, tuple(states) if keep_states else None)

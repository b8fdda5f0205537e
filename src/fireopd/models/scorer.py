"""Log-probabilities and entropies of tokens under a causal language model, computed in chunks.

A [tokens, vocabulary] tensor never exists. This module is the only place that shifts logits against tokens: the output
of the model at position t - 1 predicts token t.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint
from transformers.modeling_utils import PreTrainedModel

from fireopd.distributed import collectives
from fireopd.distributed.gather import gather_rows
from fireopd.errors import UserError
from fireopd.models.distributions import DistributionComparison, HeadComparison, log_distribution
from fireopd.models.kernels import Kernels, token_logprobs
from fireopd.models.lockstep import deal_micro_batches
from fireopd.models.output_head import OutputHead, backbone
from fireopd.models.token_budget import by_token_budget
from fireopd.progress import track
from fireopd.types import RolloutBatch, TokenScores

__all__ = ["CHUNK_LOGITS", "MAX_DISCREPANCY", "CausalScorer", "check_scorer", "score_rollouts"]

MAX_DISCREPANCY = 1e-3
"""Tolerance in nats between chunked scores and the model's own logits, in addition to the rounding of these logits."""

CHUNK_LOGITS = 2**25
"""Default number of logits in memory at a time: 128 MiB of float32, 220 tokens with a vocabulary of 152,000."""


class CausalScorer(nn.Module):
    """Causal language model whose forward pass returns scores of given tokens instead of logits.

    At most `chunk_logits` logits are in memory at a time, in the forward and the backward pass, for any row length and
    vocabulary size. The output head runs inside this module's forward, where a sharded model has its weights gathered.
    """

    def __init__(self, model: PreTrainedModel, chunk_logits: int = CHUNK_LOGITS, kernels: Kernels = "torch") -> None:
        """Wrap a model.

        Args:
            model: Hugging Face causal LM whose logits are its output layer applied to its last hidden states, with
                the scale and soft-cap of `LogitTransform.from_config`. `check_scorer` compares with its own logits.
            chunk_logits: number of logits in memory at a time, at least those of one token.
            kernels: implementation of the log-probabilities.
        """
        super().__init__()
        if chunk_logits < 1:
            raise ValueError(f"chunk_logits must be at least 1, got {chunk_logits}")
        self.model = model
        self.chunk_logits = chunk_logits
        self.kernels: Kernels = kernels

    @property
    def head(self) -> OutputHead:
        """Output layer with its own parameters; those of a sharded model are gathered within its forward pass only."""
        return OutputHead.of(self.model)

    @property
    def sharded(self) -> bool:
        """True if the parameters are sharded over the processes (FSDP2)."""
        return isinstance(self, FSDPModule)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        keep_hidden_states: bool = False,
        comparison: DistributionComparison | None = None,
    ) -> TokenScores:
        """Score tokens.

        Args:
            tokens: int64 [B, L], padded on the right. Causal attention ignores the padding.
            mask: bool [B, L]. Tokens to score. The first token of a row has no context; its scores are 0.
            temperature: divisor of the logits, including those of the teachers in `comparison`.
            entropy: whether to compute the entropies.
            keep_hidden_states: whether to return the last hidden states that predict the scored tokens.
            comparison: measure of the model's and the teachers' distributions for the same rows.

        Returns:
            Differentiable scores of shape [B, L], 0 outside the mask.
        """
        hidden_states = backbone(self.model)(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
        scored = mask.clone()
        scored[:, 0] = False
        results: dict[str, Tensor] = {}
        for selected, head_comparison in self._by_teacher(scored, comparison):
            inputs = hidden_states[selected[:, 1:]], tokens[selected]
            if head_comparison is None:
                values = self._score_tokens(*inputs, temperature, entropy)
            else:
                values = self._compare_distributions(*inputs, head_comparison, temperature, entropy)
            for name, value in values.items():
                result = results.get(name, torch.zeros(tokens.shape, dtype=value.dtype, device=tokens.device))
                results[name] = result.masked_scatter(selected, value)
        kept = hidden_states[scored[:, 1:]].split(scored.sum(-1).tolist()) if keep_hidden_states else None
        return TokenScores(
            logprobs=results.pop("logprobs"),
            entropy=results.pop("entropy", None),
            comparisons=results,
            hidden_states=kept,
        )

    @staticmethod
    def _by_teacher(
        scored: Tensor, comparison: DistributionComparison | None
    ) -> Iterator[tuple[Tensor, HeadComparison | None]]:
        """Yield a token mask, bool [B, L], per teacher of the comparison; a single one without a comparison."""
        if comparison is None:
            yield scored, None
        else:
            yield from ((scored & rows[:, None], part) for rows, part in comparison.by_head())

    def _score_tokens(
        self, hidden_states: Tensor, target_ids: Tensor, temperature: float, entropy: bool
    ) -> dict[str, Tensor]:
        head = self.head
        logprobs, entropies = token_logprobs(self.kernels)(
            hidden_states,
            head.weight,
            head.bias,
            target_ids,
            temperature=temperature,
            entropy=entropy,
            chunk_logits=self.chunk_logits,
            transform=head.transform,
        )
        return {"logprobs": logprobs} if entropies is None else {"logprobs": logprobs, "entropy": entropies}

    def _compare_distributions(
        self, hidden_states: Tensor, target_ids: Tensor, comparison: HeadComparison, temperature: float, entropy: bool
    ) -> dict[str, Tensor]:
        """Compare full distributions chunk by chunk; activation checkpointing recomputes each in the backward pass."""
        size = max(1, self.chunk_logits // len(self.head.weight))

        def compare(hidden_states: Tensor, target_ids: Tensor, comparison: HeadComparison) -> dict[str, Tensor]:
            """Return float [T] by name."""
            student = log_distribution(self.head(hidden_states), temperature)
            values = {"logprobs": student.gather(-1, target_ids[:, None]).squeeze(-1)}
            if entropy:
                values["entropy"] = torch.special.entr(student.exp()).sum(-1)
            return {**values, **comparison.compare(student, target_ids, temperature)}

        chunks = zip(hidden_states.split(size), target_ids.split(size), comparison.split(size), strict=True)
        results = [checkpoint(compare, *chunk, use_reentrant=False) for chunk in chunks]
        return {name: torch.cat([result[name] for result in results]) for name in results[0]}

    @torch.no_grad()
    def discrepancy(self, tokens: Tensor) -> tuple[float, float]:
        """Compare the scores of int64 [1, L] tokens with the model's own logits.

        Returns:
            The largest absolute difference in nats. It is large if the architecture transforms its logits in a way that
            `LogitTransform` does not know. Second, the part that the dtype of the model's logits explains.
        """
        chunked = self(tokens, torch.ones_like(tokens, dtype=torch.bool)).logprobs[:, 1:]
        logits = self.model(input_ids=tokens, use_cache=False).logits[:, :-1]
        direct = logits.to(chunked.dtype).log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
        # Scale and soft-cap round as well; each rounding is at most half a unit in the last place of the largest logit.
        rounding = 2 * torch.finfo(logits.dtype).eps * logits.abs().max().item()
        return (chunked - direct).abs().max().item(), rounding


@torch.no_grad()
def score_rollouts(
    scorer: CausalScorer,
    rollouts: RolloutBatch,
    *,
    entropy: bool,
    token_budget: int,
    keep_hidden_states: bool = False,
    comparison: DistributionComparison | None = None,
) -> TokenScores:
    """Score the responses of a batch in micro-batches.

    Ranks that share a sharded model compute in lockstep: their rows are scored together, by micro-batches of equal work
    on all ranks, whichever rank sampled them. With hidden states or a comparison, each rank scores its own rows.

    Args:
        scorer: student or teacher.
        rollouts: B trajectories.
        entropy: whether to compute the entropies.
        token_budget: tokens per micro-batch, padding included.
        keep_hidden_states: whether to return the last hidden states that predict the response tokens.
        comparison: measure of the scorer's and the teachers' distributions for the B rows.

    Returns:
        Scores of shape [B, L] in the row order of the batch.
    """
    if scorer.sharded and comparison is None and not keep_hidden_states:
        return _score_together(scorer, rollouts, entropy=entropy, token_budget=token_budget)
    like = rollouts.sampling_logprobs
    logprobs, comparisons = torch.zeros_like(like), dict[str, Tensor]()
    entropies = torch.zeros_like(like) if entropy else None
    hidden_states = [like.new_zeros(0)] * len(like)
    batches = by_token_budget(rollouts.attention_mask.sum(-1), token_budget)
    # All processes take part in each all-gather of a sharded model: those with fewer micro-batches score fillers.
    fillers = collectives.all_reduce_max(len(batches), like.device) - len(batches) if scorer.sharded else 0
    for rows in track(batches, "scoring"):
        part = rollouts.select(rows)
        scores = scorer(
            part.tokens,
            part.response_mask,
            temperature=rollouts.sampling.temperature,
            entropy=entropy,
            keep_hidden_states=keep_hidden_states,
            comparison=comparison.select(rows) if comparison else None,
        )
        width = part.tokens.shape[1]
        logprobs[rows, :width] = scores.logprobs.to(like.dtype)
        if entropies is not None:
            entropies[rows, :width] = scores.entropy.to(like.dtype)
        for name, values in scores.comparisons.items():
            comparisons.setdefault(name, torch.zeros_like(like))[rows, :width] = values.to(like.dtype)
        for row, states in zip(rows.tolist(), scores.hidden_states or (), strict=keep_hidden_states):
            hidden_states[row] = states
    filler = rollouts.tokens.new_zeros(1, 2)
    for _ in range(fillers):
        scorer(filler, torch.ones_like(filler, dtype=torch.bool), entropy=entropy)
    return TokenScores(logprobs, entropies, comparisons, tuple(hidden_states) if keep_hidden_states else None)


def _score_together(scorer: CausalScorer, rollouts: RolloutBatch, *, entropy: bool, token_budget: int) -> TokenScores:
    """Score the rows of all ranks in rounds of equal work, and return the scores of this rank's rows."""
    mask, like = rollouts.attention_mask, rollouts.sampling_logprobs
    (tokens, scored, lengths), own = gather_rows(rollouts.tokens, rollouts.response_mask, mask.sum(-1))
    found = {name: like.new_zeros(tokens.shape) for name in ("logprobs", "entropy")[: 1 + entropy]}
    filler = tokens.new_zeros(1, 2)
    settings = {"temperature": rollouts.sampling.temperature, "entropy": entropy}
    for dealt in track(deal_micro_batches(lengths, token_budget, collectives.world_size()), "scoring"):
        rows = dealt[collectives.rank()]
        if not len(rows):
            scorer(filler, torch.ones_like(filler, dtype=torch.bool), **settings)
            continue
        width = int(lengths[rows].max())
        scores = scorer(tokens[rows, :width], scored[rows, :width], **settings)
        for name, values in found.items():
            values[rows, :width] = getattr(scores, name).to(like.dtype)
    # One rank scored each row; the others have zeros.
    mine = {name: collectives.all_reduce_sum(values)[own, : like.shape[1]] for name, values in found.items()}
    return TokenScores(mine["logprobs"], mine.get("entropy"))


def check_scorer(key: str, name: str, scorer: CausalScorer) -> None:
    """Score a probe sequence and compare the result with the model's own logits.

    Raises:
        UserError: if the model has no linear output layer, or if its scores are not finite or differ from its own
            logits by more than `MAX_DISCREPANCY` and their rounding.
    """
    layer = scorer.model.get_output_embeddings()
    remedy = (
        "use a causal language model of finite weights whose logits are a linear function of its last hidden states"
    )
    if not isinstance(getattr(layer, "weight", None), Tensor):
        raise UserError(key, name, "it has no linear output layer", remedy)
    probe = torch.arange(min(16, layer.weight.shape[0]), device=scorer.model.device)[None]
    try:
        gap, rounding = scorer.discrepancy(probe)
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        problem = f"its forward pass does not give last hidden states and logits ({type(error).__name__}: {error})"
        raise UserError(key, name, problem, remedy) from error
    if not gap <= MAX_DISCREPANCY + rounding:
        problem = f"scores of a probe differ from the model's own logits by {gap:.3g} nats"
        raise UserError(key, name, problem, remedy)

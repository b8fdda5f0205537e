"""Re-prompting of rollouts: the same responses after different prompts, for teachers with additional context."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fireopd.types import RolloutBatch

__all__ = ["align_to", "replace_prompts"]


def replace_prompts(rollouts: RolloutBatch, prompts: Sequence[Sequence[int]]) -> RolloutBatch:
    """Return the trajectories with other prompt tokens and unchanged response tokens.

    Args:
        rollouts: B trajectories.
        prompts: B sequences of token ids.
    """
    lengths = rollouts.response_mask.sum(-1).tolist()
    width = max((len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)), default=1)
    tokens = rollouts.tokens.new_zeros(len(prompts), width)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    attention = torch.zeros_like(mask)
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        start, end = len(prompt), len(prompt) + length
        tokens[row, :start] = tokens.new_tensor(prompt)
        tokens[row, start:end] = rollouts.tokens[row][rollouts.response_mask[row]]
        mask[row, start:end] = True
        attention[row, :end] = True
    logprobs = rollouts.sampling_logprobs.new_zeros(tokens.shape)
    logprobs[mask] = rollouts.sampling_logprobs[rollouts.response_mask]
    return replace(rollouts, tokens=tokens, attention_mask=attention, response_mask=mask, sampling_logprobs=logprobs)


def align_to(rollouts: RolloutBatch, values: Tensor, response_mask: Tensor) -> Tensor:
    """Return float [B, L] response-token values of re-prompted rollouts at the positions of the original rollouts.

    Args:
        rollouts: original trajectories.
        values: float [B, K]. Values of the re-prompted trajectories.
        response_mask: bool [B, K]. Response mask of the re-prompted trajectories.
    """
    aligned = values.new_zeros(rollouts.tokens.shape)
    aligned[rollouts.response_mask] = values[response_mask]
    return aligned

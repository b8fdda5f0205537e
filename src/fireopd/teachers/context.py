"""Reading the same responses after other prompts, for teachers that are told more than the student."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fireopd.types import RolloutBatch


def after_prompts(rollouts: RolloutBatch, prompts: Sequence[Sequence[int]]) -> RolloutBatch:
    """Return the trajectories with other prompts in the place of theirs, the responses token for token the same.

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
    moved = rollouts.sampling_logprobs.new_zeros(tokens.shape)
    moved[mask] = rollouts.sampling_logprobs[rollouts.response_mask]
    return replace(rollouts, tokens=tokens, attention_mask=attention, response_mask=mask, sampling_logprobs=moved)


def align(values: Tensor, read: RolloutBatch, rollouts: RolloutBatch) -> Tensor:
    """Return float [B, L] values of the response tokens of `read` where the same tokens stand in `rollouts`."""
    aligned = values.new_zeros(rollouts.tokens.shape)
    aligned[rollouts.response_mask] = values[read.response_mask]
    return aligned

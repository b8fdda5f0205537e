"""One rollout: prompts go to the engine, responses come back, and both become a `RolloutBatch`."""

import hashlib
import time
from collections.abc import Sequence

import torch

from fireopd.engines import RolloutEngine
from fireopd.types import Prompt, Response, RolloutBatch, Sampling


def roll_out(
    engine: RolloutEngine, prompts: Sequence[Prompt], *, responses: int, seed: int, step: int, first_group: int = 0
) -> tuple[RolloutBatch, list[Prompt], list[Response]]:
    """Sample responses to each prompt.

    Args:
        engine: samples.
        prompts: P prompts.
        responses: responses a prompt.
        seed: of the run.
        step: number of the batch; with the seed and the prompt it decides what a row gets.
        first_group: number of the first prompt's group.

    Returns:
        The batch of P x responses rows, with the prompt and the response of each row.
    """
    began = time.perf_counter()
    rows = [prompt for prompt in prompts for _ in range(responses)]
    seeds = [row_seed(seed, step, prompt.id, index) for prompt in prompts for index in range(responses)]
    answers = engine.generate(rows, seeds)
    groups = [first_group + i for i in range(len(prompts)) for _ in range(responses)]
    seconds = time.perf_counter() - began
    batch = collate(rows, answers, groups, engine.sampling, engine.policy_version, seconds)
    return batch, rows, answers


def row_seed(seed: int, step: int, prompt: str, index: int) -> int:
    """Return the seed of one response, 63 bits, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{step}/{index}/{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def collate(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    groups: Sequence[int],
    sampling: Sampling,
    policy_version: int,
    seconds: float = 0.0,
) -> RolloutBatch:
    """Put B prompts and their responses side by side, padded on the right."""
    lengths = [(len(p.tokens), len(r.tokens)) for p, r in zip(prompts, responses, strict=True)]
    width = max((prompt + response for prompt, response in lengths), default=1)
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    attention, mask = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool)
    logprobs = torch.zeros(tokens.shape)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        start, end = len(prompt.tokens), len(prompt.tokens) + len(response.tokens)
        tokens[row, :end] = torch.tensor(prompt.tokens + response.tokens)
        attention[row, :end] = True
        mask[row, start:end] = True
        logprobs[row, start:end] = torch.tensor(response.logprobs)
    return RolloutBatch(
        tokens=tokens,
        attention_mask=attention,
        response_mask=mask,
        sampling_logprobs=logprobs,
        groups=torch.tensor(groups, dtype=torch.int64),
        finished=torch.tensor([response.finished for response in responses], dtype=torch.bool),
        prompts=tuple(prompts),
        sampling=sampling,
        policy_version=policy_version,
        seconds=seconds,
    )

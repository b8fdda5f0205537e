"""Rollouts of one engine without a plan, and the collation of responses to a `RolloutBatch`."""

import hashlib
import time
from collections.abc import Callable, Sequence

import torch

from fireopd.engines.base import RolloutEngine, ignore_response
from fireopd.engines.contract import checked_responses
from fireopd.types import Prompt, Response, RolloutBatch, Sampling, Source

__all__ = ["collate", "roll_out", "row_seed"]


def roll_out(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    *,
    responses: int,
    seed: int,
    step: int,
    vocabulary: int,
    first_group: int = 0,
    finished: Callable[[RolloutBatch], None] | None = None,
) -> tuple[RolloutBatch, list[Prompt], list[Response]]:
    """Sample several responses per prompt.

    Args:
        engine: rollout engine.
        prompts: P prompts.
        responses: number of responses per prompt.
        seed: seed of the run.
        step: index of the batch. Together with the run seed, the prompt id and the response index, it seeds each row.
        vocabulary: number of token ids of the student.
        first_group: group number of the first prompt.
        finished: called with each trajectory when it is complete, by engines that complete rows one by one; possibly
            from several threads.

    Returns:
        A batch of P x `responses` rows, the prompt of each row, and the response of each row.

    Raises:
        ContractError: if the responses of the engine are invalid.
    """
    start = time.perf_counter()
    rows = [prompt for prompt in prompts for _ in range(responses)]
    seeds = [row_seed(seed, step, prompt.id, index) for prompt in prompts for index in range(responses)]

    def announce(row: int, response: Response) -> None:
        """Pass a trajectory on."""
        checked = checked_responses(engine, [response], rows[row : row + 1], vocabulary)
        if finished is not None:
            finished(collate(rows[row : row + 1], checked, [0], engine.sampling, engine.policy_version))

    engine.announce = ignore_response if finished is None else announce
    sampled = checked_responses(engine, engine.generate(rows, seeds), rows, vocabulary)
    groups = [first_group + i for i in range(len(prompts)) for _ in range(responses)]
    seconds = time.perf_counter() - start
    batch = collate(rows, sampled, groups, engine.sampling, engine.policy_version, seconds)
    return batch, rows, sampled


def row_seed(seed: int, step: int, prompt: str, index: int) -> int:
    """Return the 63-bit seed of one response, identical on all machines."""
    digest = hashlib.blake2b(f"{seed}/{step}/{index}/{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def collate(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    groups: Sequence[int],
    sampling: Sampling,
    policy_version: int,
    seconds: float = 0.0,
    *,
    trains_given: bool = False,
) -> RolloutBatch:
    """Concatenate B prompts with their responses and pad on the right.

    With `trains_given`, given tokens are part of the response mask. `sources` are set if another author than the
    student wrote a token.
    """
    lengths = [(len(p.tokens), len(r.tokens)) for p, r in zip(prompts, responses, strict=True)]
    width = max((prompt + response for prompt, response in lengths), default=1)
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    attention, mask = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool)
    logprobs, sources = torch.zeros(tokens.shape), torch.zeros_like(tokens, dtype=torch.uint8)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        start, end = len(prompt.tokens), len(prompt.tokens) + len(response.tokens)
        tokens[row, :end] = torch.tensor(prompt.tokens + response.tokens)
        attention[row, :end] = True
        sources[row, start:end] = torch.tensor(response.authors, dtype=torch.uint8)
        mask[row, start:end] = True
        logprobs[row, start:end] = torch.tensor(response.logprobs)
    mixed = any(response.sources is not None for response in responses)
    return RolloutBatch(
        tokens=tokens,
        attention_mask=attention,
        response_mask=mask if trains_given else mask & (sources != Source.GIVEN),
        sampling_logprobs=logprobs,
        groups=torch.tensor(groups, dtype=torch.int64),
        finished=torch.tensor([response.finished for response in responses], dtype=torch.bool),
        prompts=tuple(prompts),
        sampling=sampling,
        policy_version=policy_version,
        sources=sources if mixed else None,
        seconds=seconds,
    )

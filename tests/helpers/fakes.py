"""Fakes: random scored batches, and an engine that records its calls."""

import socket
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fireopd.engines import RolloutEngine
from fireopd.types import Prompt, Response, RolloutBatch, ScoredBatch

SIGNALS = ("sampling_logprobs", "student_logprobs", "student_entropy", "teacher_logprobs", "teacher_entropy")


def scored_batch(rows=6, width=9, seed=0, dtype=torch.float32, teachers=None, **signals) -> ScoredBatch:
    """Return a random batch with responses of different lengths and start positions."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(1, 3, (rows,), generator=generator)
    ends = starts + torch.randint(1, max(2, width - 2), (rows,), generator=generator)
    place = torch.arange(width)
    mask = (place >= starts[:, None]) & (place < ends[:, None])
    made = {name: random_signal(name, mask, generator, dtype) for name in SIGNALS}
    return ScoredBatch(
        tokens=torch.randint(0, 40, (rows, width), generator=generator),
        response_mask=mask,
        groups=torch.arange(rows),
        finished=torch.ones(rows, dtype=torch.bool),
        teachers=tuple(teachers or ["math", "code"] * rows)[:rows],
        signals=made | signals,
    )


def random_signal(name: str, mask: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    values = torch.rand(mask.shape, generator=generator, dtype=torch.float64) * 3
    return torch.where(mask, values if "entropy" in name else -values, 0.0).to(dtype)


def rollouts_of(batch: ScoredBatch) -> RolloutBatch:
    """Return rollouts that match a scored batch."""
    place = torch.arange(batch.tokens.shape[1])
    ends = torch.where(batch.response_mask, place, 0).max(-1).values
    return RolloutBatch(
        tokens=batch.tokens,
        attention_mask=place <= ends[:, None],
        response_mask=batch.response_mask,
        sampling_logprobs=batch.sampling_logprobs,
        groups=batch.groups,
        finished=batch.finished,
        prompts=tuple(Prompt((), name, name, None, f"{name}:{row}") for row, name in enumerate(batch.teachers)),
        sampling=batch.sampling,
        policy_version=batch.policy_version,
    )


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclass
class ScriptedEngine(RolloutEngine):
    """Engine that returns the same tokens for every prompt."""

    answer: tuple[int, ...] = (5, 6, 1)
    max_response_length: int = 8
    events: list[str] = field(default_factory=list)

    def for_another_model(self):
        return self

    def setup(self, model, device):
        self.events.append(f"setup {model}")

    def generate(self, prompts, seeds):
        self.events.append(f"generate {self.policy_version}")
        return [Response(self.answer, (-1.0,) * len(self.answer), finished=True) for _ in prompts]

    def probe(self, tokens):
        return {}

    def load_weights(self, weights, policy_version):
        self.events.append(f"load {policy_version}")
        self.loaded = dict(weights)
        self.policy_version = policy_version


def full_batch(rows=8, width=12, seed=0, **settings) -> ScoredBatch:
    """Return a random batch with all signals and two responses per prompt."""
    batch = scored_batch(rows, width, seed, **settings)
    generator = torch.Generator().manual_seed(seed + 1)
    dtype = batch.student_logprobs.dtype
    signals = {"base_logprobs": random_signal("base_logprobs", batch.response_mask, generator, dtype)}
    signals["reverse_kl"] = random_signal("entropy", batch.response_mask, generator, dtype)
    signals["topk_reverse_kl"], signals["topk_forward_kl"] = signals["reverse_kl"] / 2, signals["reverse_kl"] ** 2
    for name in ("topk_overlap", "student_topk_mass"):
        signals[name] = random_signal("entropy", batch.response_mask, generator, dtype) / 3
    signals["teacher_rank"] = random_signal("entropy", batch.response_mask, generator, dtype).mul(3).ceil()
    signals["rewards"] = torch.randint(0, 2, (rows,), generator=generator).to(dtype)
    return replace(batch, groups=torch.arange(rows) // 2, signals=dict(batch.signals) | signals)


LENGTHS = (1, 2, 3, 4)


def small_batch(teachers=("math", "math", "code", "code"), policy_version=0):
    """Return four rows with responses of one to four tokens after a prompt of one."""
    place = torch.arange(5)
    mask = (place >= 1) & (place < 1 + torch.tensor(LENGTHS)[:, None])
    signals = {name: torch.where(mask, torch.full((4, 5), -1.0), 0.0) for name in scored_batch().signals}
    signals["teacher_logprobs"] = signals["teacher_logprobs"] * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    signals |= {name: signals[name].abs() for name in ("student_entropy", "teacher_entropy")}
    batch = scored_batch(4, 5, teachers=teachers)
    return replace(batch, response_mask=mask, signals=signals, policy_version=policy_version)


def at_student(scorer, batch):
    """Return the batch with the log-probabilities of this student, also as those of the sampler."""
    with torch.no_grad():
        logprobs = scorer(batch.tokens, batch.response_mask).logprobs
    return replace(batch, signals=batch.signals | {"student_logprobs": logprobs, "sampling_logprobs": logprobs})

"""Question 8: targets, diagnostics and histograms of a large batch."""

import tempfile
from collections.abc import Iterator
from functools import partial

import torch
from torch.utils.tensorboard import SummaryWriter

from fireopd.callbacks.curves import distributions
from fireopd.filters import TeacherLikelihoodFilter
from fireopd.method import Method
from fireopd.training.step_metrics import step_diagnostics
from fireopd.types import ScoredBatch, Targets
from fireopd.weighters import EntropyWeighter
from gpu_checks.measure import attempt, held, measure, release
from gpu_checks.sizes import Row, Sizes

SIGNALS = ("sampling_logprobs", "student_logprobs", "student_entropy", "teacher_logprobs", "teacher_entropy")
"""Signals of FiRe-OPD."""


def ask(sizes: Sizes) -> Iterator[Row]:
    """Yield time and peak of each part."""
    batch, method = long_tailed_batch(sizes), Method(TeacherLikelihoodFilter(0.2), EntropyWeighter())
    name = "{} x {}".format(*sizes.diagnostics_shape)
    yield {"case": f"batch, {name}", "tokens": int(batch.lengths.sum()), **held(sizes)}
    yield attempt(f"targets, {name}", lambda: measure(sizes, lambda: method.targets(batch), repeats=2))
    release()
    targets = method.targets(batch)
    yield attempt(f"diagnostics, {name}", lambda: measure(sizes, lambda: step_diagnostics(batch, targets), repeats=2))
    release()
    yield attempt(f"histograms, {name}", partial(histograms, sizes, batch, targets))


def long_tailed_batch(sizes: Sizes) -> ScoredBatch:
    """Return a random batch with log-normal response lengths, half of the rows by each of two teachers."""
    rows, width = sizes.diagnostics_shape
    generator = torch.Generator().manual_seed(0)
    prompts = max(1, width // 64)
    lengths = (width / 8 * torch.randn(rows, generator=generator).exp()).clamp(1, width - prompts).long()
    place = torch.arange(width, device=sizes.device)
    mask = (place >= prompts) & (place < prompts + lengths.to(sizes.device)[:, None])
    signals = {}
    for number, name in enumerate(SIGNALS):
        torch.manual_seed(number)
        values = torch.rand(rows, width, device=sizes.device) * 3
        signals[name] = torch.where(mask, values if "entropy" in name else -values, 0.0)
    return ScoredBatch(
        tokens=torch.zeros(rows, width, dtype=torch.int64, device=sizes.device),
        response_mask=mask,
        groups=torch.arange(rows, device=sizes.device),
        finished=torch.ones(rows, dtype=torch.bool, device=sizes.device),
        teachers=tuple(("math", "code")[row % 2] for row in range(rows)),
        signals=signals,
    )


def histograms(sizes: Sizes, batch: ScoredBatch, targets: Targets) -> Row:
    """Return time and peak of the histograms of one step, written to a folder."""
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:

        def work() -> None:
            for tag, values in distributions(batch, targets).items():
                writer.add_histogram(tag, values, 0)

        return measure(sizes, work, repeats=1)

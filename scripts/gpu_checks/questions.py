"""Questions in order of importance, with their time boxes, and the process that answers each."""

import gc
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from transformers.utils.logging import disable_progress_bar

from gpu_checks.sizes import Row, Sizes

BAD_FORK = ("forked subprocess", "initialization error")
"""Parts of the messages of CUDA in a process that was forked after CUDA was initialised."""

CLOSED = "the process ended early"
"""Problem of a process that ended without a last message."""
EXIT_SECONDS = 3.0
"""Seconds that a process has to exit after its last message."""


@dataclass(frozen=True)
class Question:
    """One table of the report."""

    name: str
    """Module of `gpu_checks` with the function `ask`."""
    title: str
    """Title of the table."""
    seconds: float
    """Time box. A question that exceeds it is stopped; its rows up to then are kept."""


QUESTIONS = (
    Question("machine", "Machine", 12),
    Question("cpu_parity", "Parity with the CPU, float32", 20),
    Question("embedded_run", "Embedded run against the CPU's curves", 75),
    Question("attention", "Kernels of grouped-query attention, forward and backward", 20),
    Question("fused_kernels", "Fused kernels of the output layer against the chunked path", 45),
    Question("output_layer", "Log-probabilities and entropies at a large vocabulary", 30),
    Question("updates", "Forward and backward pass, scoring, and step", 80),
    Question("layer_kernels", "Implementations of the layers", 50),
    Question("sharding", "FSDP2 in one process", 35),
    Question("experts", "Mixture of experts", 18),
    Question("decoding", "Decoding by HFEngine", 35),
    Question("diagnostics", "Targets, diagnostics and histograms of a large batch", 15),
    Question("rounding", "The same rows in different micro-batches", 15),
    Question("trl_step", "A step of TRL and of fireopd", 30),
)
"""All questions: correctness first, so that a short lease answers that."""


@dataclass
class Answer:
    """Rows of one question."""

    title: str
    """Title of the table."""
    rows: list[Row]
    """Rows in order."""
    seconds: float
    """Time that the question took."""
    problem: str | None
    """Reason why the question was not finished, or None."""


def answer(question: Question, sizes: Sizes, seconds: float, method: str, report: Callable[[Row], None]) -> Answer:
    """Answer a question in a process of its own, which is stopped after some seconds.

    Args:
        question: the question.
        sizes: sizes of all questions.
        seconds: time box.
        method: start method of the process, `fork` or `spawn`.
        report: receives each row when it arrives.
    """
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, question.name, sizes), daemon=True)
    began = time.monotonic()
    process.start()
    sender.close()
    rows, problem, patience = list[Row](), f"stopped after {seconds:.0f} s", 0.0
    for kind, value in _messages(receiver, began + seconds):
        if kind == "end":
            problem, patience = value, EXIT_SECONDS
            break
        rows.append(value)
        report(value)
    process.join(patience)
    process.kill()
    process.join()
    if problem == CLOSED:
        problem += f" with exit code {process.exitcode}"
    return Answer(question.title, rows, time.monotonic() - began, problem)


def _messages(receiver: Connection, deadline: float) -> Iterator[tuple[str, Any]]:
    """Yield the messages of a process until the deadline; the last one is ("end", problem or None)."""
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            yield receiver.recv()
        except EOFError:
            yield "end", CLOSED


def _answer(sender: Connection, name: str, sizes: Sizes) -> None:
    """Send the rows of a question, then None or the error."""
    with suppress(BrokenPipeError):
        try:
            disable_progress_bar()
            gc.freeze()  # collections skip the imported modules
            for row in import_module(f"gpu_checks.{name}").ask(sizes):
                sender.send(("row", row))
            sender.send(("end", None))
        except BaseException as error:
            traceback.print_exc()
            text = str(error).strip()
            sender.send(("end", f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:300]))


def preload() -> None:
    """Import the modules of all questions, so that forked processes start at once; errors are left to them."""
    disable_progress_bar()
    for question in QUESTIONS:
        with suppress(Exception):
            import_module(f"gpu_checks.{question.name}")


def cannot_fork(answer: Answer) -> bool:
    """Return True if CUDA refused to start because the process was forked."""
    texts = [answer.problem or "", *(str(row.get("error", "")) for row in answer.rows)]
    return any(part in text for text in texts for part in BAD_FORK)

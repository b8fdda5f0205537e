"""Train an embedded student that can read a solution: `python scripts/make_informed_student.py OUT [--steps 300]`.

The embedded student has never seen a context. Here it is trained further on the same careless demonstrations, and on as
many correct ones that follow a chat with the problem and its solution. Without the context it stays as careless
as it was; with it, it repeats the solution. `configs/self_distillation.yaml` trains it with itself as the teacher.
Prints the accuracy on held-out problems without and with the context, sampled at temperature 1.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch

from fireopd.models import load_causal_lm, load_tokenizer
from fireopd.prompts import tiny_tasks
from make_tiny_models import ASSISTANT, END, USER, accuracy, train
from tiny_demonstrations import SLIP, careless

RATE = 1e-3
"""Learning rate."""


def solved(problem: tiny_tasks.Problem) -> str:
    """Return the text of the problem after a chat with its solution, as the context of the configuration gives it."""
    return f"{problem.text}{ASSISTANT}{problem.solution}{END}{USER}{problem.text}"


def demonstrations(seed: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of prompt and response without end: careless ones, and correct ones after the solution."""
    rng = random.Random(seed)
    while True:
        problem = tiny_tasks.TASKS[rng.choice(list(tiny_tasks.TASKS))](rng)
        if problem.held_out:
            continue
        if rng.random() < 0.5:
            yield solved(problem), problem.solution
        else:
            yield problem.text, careless(problem, rng, SLIP)


def main() -> None:
    """Train the model and save it as a Hugging Face folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    model, tokenizer = load_causal_lm("tiny/student", "student", "float32"), load_tokenizer("tiny/student", "student")
    train(model, tokenizer, demonstrations(arguments.seed), arguments.steps, RATE, "informed student")
    model.eval()
    for task in tiny_tasks.TASKS:
        print(f"{task}: {accuracy(model, tokenizer, task):.3f} without the solution", flush=True)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()

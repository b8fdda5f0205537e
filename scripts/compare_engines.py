"""Decoding speed of two engines on the same prompts: `python scripts/compare_engines.py MODEL PROMPTS.jsonl`.

The engines alternate in one process, so that other load on the machine affects both. Seeds are fixed. The engines
sample different responses from the same distribution, so the measure is response tokens per second.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fireopd.engines import HFEngine, RolloutEngine, VLLMEngine
from fireopd.prompts import JSONLPrompts
from fireopd.training.data import RolloutDataModule
from fireopd.types import Prompt


def tokens_per_second(engine: RolloutEngine, prompts: list[Prompt], seed: int) -> float:
    """Return the response tokens per second of one rollout."""
    began = time.perf_counter()
    responses = engine.generate(prompts, range(seed, seed + len(prompts)))
    return sum(len(response.tokens) for response in responses) / (time.perf_counter() - began)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder, hub name, or embedded model")
    parser.add_argument("prompts", type=Path, help="JSONL file of prompts")
    parser.add_argument("--number", type=int, default=64, help="prompts per rollout")
    parser.add_argument("--length", type=int, default=64, help="maximum response length, tokens")
    parser.add_argument("--rounds", type=int, default=5, help="rollouts per engine")
    options = parser.parse_args()
    source = JSONLPrompts(options.prompts, teacher="none")
    data = RolloutDataModule(options.model, source, HFEngine(options.length), batch_size=1)
    data.setup("fit")
    prompts = data.training_prompts[: options.number]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    longest = max(len(prompt.tokens) for prompt in prompts) + options.length
    settings = {"kv_cache_gib": 1.0, "max_model_length": longest, "eager": device.type == "cpu"}
    engines = {"VLLMEngine": VLLMEngine(options.length, **settings), "HFEngine": HFEngine(options.length)}
    for engine in engines.values():
        engine.setup(options.model, device)
        engine.generate(prompts, range(len(prompts)))
    measured: dict[str, list[float]] = {name: [] for name in engines}
    for turn in track(range(options.rounds), "Measuring"):
        for name, engine in engines.items():
            measured[name].append(tokens_per_second(engine, prompts, 1000 * (turn + 1)))
    measured["ratio"] = [a / b for a, b in zip(measured["VLLMEngine"], measured["HFEngine"], strict=True)]
    table = Table("tokens/s", "median", "lowest", "highest")
    for name, values in measured.items():
        table.add_row(name, *(f"{value:.3g}" for value in (statistics.median(values), min(values), max(values))))
    Console().print(table)


if __name__ == "__main__":
    main()

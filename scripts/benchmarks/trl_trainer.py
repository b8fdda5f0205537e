"""TRL's `DistillationTrainer` as an interleaved loop (extra `bench`)."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.interleaving import Boundary, Loop
from benchmarks.machine import version
from benchmarks.ratios import LeftOut
from benchmarks.settings import Settings
from fireopd.models.loading import disable_dropout, load_causal_lm, load_tokenizer
from fireopd.types import Prompt

TESTED = "1.16.0"
"""Version of TRL in the published results."""
STEPS = 150
"""Length of the schedule, as in configs/multi_teacher.yaml."""


def missing(name: str) -> LeftOut | None:
    """Return the reason to skip a ratio to TRL, or None."""
    found = version("trl")
    if found == TESTED:
        return None
    return LeftOut(name, f"TRL {TESTED} is required, installed: {found or 'none'}; run pip install -e '.[bench]'")


def trl_loop(settings: Settings, prompts: Sequence[Prompt], teacher: str, folder: Path) -> Loop:
    """Return TRL's trainer with one teacher as a loop, with settings for a small model and without output.

    One micro-batch of all rows without accumulation, float32, no activation checkpointing, a key-value cache, no
    evaluation, logging or checkpoints; batch, prompts, response length, optimizer and schedule as in fireopd.
    """

    def run(boundary: Boundary) -> None:
        warnings.filterwarnings("ignore", message="TRL currently supports vLLM")  # not used here
        from datasets import Dataset
        from transformers import TrainerCallback
        from trl import DistillationConfig, DistillationTrainer

        class StepEnd(TrainerCallback):
            """Calls the boundary after each step."""

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                boundary({})

        models = [disable_dropout(load_causal_lm(name, "model", "float32")) for name in ("tiny/student", teacher)]
        tokenizer = load_tokenizer("tiny/student", "model")
        tokenizer.padding_side = "left"
        trainer = DistillationTrainer(
            model=models[0],
            teacher_model=models[1],
            args=DistillationConfig(
                output_dir=str(folder),
                per_device_train_batch_size=settings.rows,
                gradient_accumulation_steps=1,
                max_steps=STEPS,
                max_completion_length=settings.response_length,
                learning_rate=3e-4,
                weight_decay=0.0,
                lr_scheduler_type="cosine",
                max_grad_norm=1.0,
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=settings.device.type == "cpu",
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt.content} for prompt in prompts]),
            processing_class=tokenizer,
            callbacks=[StepEnd()],
        )
        trainer.train()

    return Loop(run)

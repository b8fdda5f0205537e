"""TRL's `DistillationTrainer` as a loop that takes turns. TRL is asked for by the benchmark alone (extra `bench`)."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machines import version
from benchmarks.ratios import LeftOut
from benchmarks.settings import Settings
from benchmarks.turns import Boundary, Loop
from fireopd.models.loading import disable_dropout, load_causal_lm, load_tokenizer
from fireopd.types import Prompt

TESTED = "1.16.0"
"""The version of TRL that the figures are about."""
STEPS = 150
"""Of the schedule, as in configs/multi_teacher.yaml."""


def missing(name: str) -> LeftOut | None:
    """Return why a ratio to TRL is left out, if it has to be."""
    found = version("trl")
    if found == TESTED:
        return None
    return LeftOut(name, f"TRL {TESTED} is needed, {found or 'none'} is installed: pip install -e '.[bench]'")


def trl_loop(settings: Settings, prompts: Sequence[Prompt], teacher: str, folder: Path) -> Loop:
    """Return TRL's trainer with one teacher as a loop: its plain settings for a small model, and nothing written.

    One micro-batch of all rows without accumulation, float32, no recomputation of activations, a key-value cache, no
    evaluation, logging or checkpoints; batch, prompts, response length, optimizer and schedule are ours.
    """

    def run(boundary: Boundary) -> None:
        warnings.filterwarnings("ignore", message="TRL currently supports vLLM")  # which takes no part
        from datasets import Dataset
        from transformers import TrainerCallback
        from trl import DistillationConfig, DistillationTrainer

        class StepEnd(TrainerCallback):
            """Stops after each step until the next is asked for."""

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

"""Train the embedded models: `python scripts/make_tiny_models.py [--models student small math code] [--seed 0]`.

The student is trained on careless demonstrations: they contain slips (a wrong result that later steps use), and some
end in random text. The teachers are initialized with the student and trained on correct demonstrations of their own
task and careless ones of the other. The small student is narrower and trained like the student. The teachers of the
test beds are initialized with one of these models and trained on the demonstrations of one author; see `BEDS`. Takes
about an hour on two cores; prints the accuracy of each model on held-out problems, sampled at temperature 1.
With `--large --device cuda` the models have a hundred times as many parameters.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from fireopd.prompts import tiny_tasks
from tiny_demonstrations import (
    CHARACTERS,
    MAX_RESPONSE,
    Author,
    correct,
    demonstrations,
    demonstrations_by,
    limited,
    mistaken,
    verbose,
)

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}{{ '<|end|>' if message['role'] == 'assistant' else '' }}"
    "{% endfor %}{{ '<|assistant|>' if add_generation_prompt else '' }}"
)
BATCH = 64


@dataclass(frozen=True)
class Scale:
    """Sizes of the models and their learning rates."""

    student: dict[str, int]
    """Size of the student and the teachers."""
    small: dict[str, int]
    """Size of the small student."""
    rate: float
    """Factor of all learning rates."""


TINY = Scale(
    {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4},
    {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 2},
    1.0,
)
"""The embedded models."""
LARGE = Scale(
    {"hidden_size": 768, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 12},
    {"hidden_size": 384, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 6},
    0.25,
)
"""Models of a hundred times as many parameters."""


@dataclass(frozen=True)
class Recipe:
    """Training of a teacher of a test bed."""

    start: str
    """Model with the initial weights."""
    author: Author
    """Author of the demonstrations."""
    tasks: tuple[str, ...] = ("math", "code")
    """Tasks of the demonstrations."""
    steps: int = 300
    """Training steps."""
    rate: float = 1e-3
    """Highest learning rate."""


BEDS = {
    "math_specialist": Recipe("math", correct, ("math",), 350, 2e-3),
    "code_specialist": Recipe("code", correct, ("code",), 350, 2e-3),
    "limited": Recipe("math", limited, ("math",)),
    "mistaken": Recipe("student", mistaken),
    "verbose": Recipe("student", verbose),
}
"""Teachers of the test beds."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a character-level tokenizer with a chat template."""
    special = [PAD, END, USER, ASSISTANT]
    vocabulary = {token: index for index, token in enumerate([*special, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def collate(tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and labels, int64 [B, L]; labels outside the response are -100.

    A response of `MAX_RESPONSE` characters is cut off, and has no end.
    """
    rows = []
    for text, response in pairs:
        prompt = tokenizer.encode(f"{USER}{text}{ASSISTANT}")
        answer = tokenizer.encode(response if len(response) >= MAX_RESPONSE else f"{response}{END}")
        rows.append((prompt + answer, [-100] * len(prompt) + answer))
    width = max(len(tokens) for tokens, _ in rows)
    tokens = torch.tensor([t + [tokenizer.pad_token_id] * (width - len(t)) for t, _ in rows])
    labels = torch.tensor([y + [-100] * (width - len(y)) for _, y in rows])
    return tokens, labels


def train(model: Qwen3ForCausalLM, tokenizer, data: Iterator, steps: int, rate: float, name: str) -> None:
    """Train with cross-entropy, a warm-up and a cosine schedule to a tenth of the learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=50)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=rate / 10)
    schedule = torch.optim.lr_scheduler.ChainedScheduler([warm_up, cosine])
    for step in track(range(steps), description=name):
        tokens, labels = (part.to(model.device) for part in collate(tokenizer, [next(data) for _ in range(BATCH)]))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
            logits = model(tokens[:, :-1]).logits
        loss = cross_entropy(logits.float().flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 200 == 199:
            print(f"{name} step {step + 1} loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def accuracy(model: Qwen3ForCausalLM, tokenizer, task: str, count: int = 300) -> float:
    """Return the accuracy on held-out problems, sampled at temperature 1."""
    source = tiny_tasks.problems(task, seed=0, held_out=True)
    chosen = [next(source) for _ in range(count)]
    batch = tokenizer(
        [f"{USER}{p.text}{ASSISTANT}" for p in chosen], return_tensors="pt", padding=True, padding_side="left"
    )
    batch.pop("token_type_ids", None)
    tokens = model.generate(**batch.to(model.device), do_sample=True, top_k=0, max_new_tokens=MAX_RESPONSE)
    texts = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return (
        sum(t.rpartition(tiny_tasks.ANSWER_MARKER)[2] == p.answer for t, p in zip(texts, chosen, strict=True)) / count
    )


def new_model(tokenizer: PreTrainedTokenizerFast, size: dict[str, int]) -> Qwen3ForCausalLM:
    """Return a Qwen3 of the given size with random weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **size,
    )
    return Qwen3ForCausalLM(config)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save the model in bfloat16, and round its weights to the saved values."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.to(torch.float32)


def make(name: str, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> Qwen3ForCausalLM:
    """Train one model; a teacher is initialized with a saved model."""
    torch.manual_seed(options.seed)
    scale = LARGE if options.large else TINY
    if name in BEDS:
        recipe = BEDS[name]
        model = load(options, recipe.start)
        data = demonstrations_by(recipe.author, recipe.tasks, options.seed + 2)
        train(model, tokenizer, data, recipe.steps, recipe.rate * scale.rate, name)
        return model
    if name not in tiny_tasks.TASKS:
        # A narrower model needs more steps and a higher learning rate.
        steps, rate = (options.student_steps * 3 // 2, 3e-3) if name == "small" else (options.student_steps, 2e-3)
        model = new_model(tokenizer, scale.small if name == "small" else scale.student).to(options.device)
        train(model, tokenizer, demonstrations(None, options.seed), steps, rate * scale.rate, name)
        return model
    model = load(options, "student")
    train(model, tokenizer, demonstrations(name, options.seed + 1), options.teacher_steps, 1e-3 * scale.rate, name)
    return model


def load(options: argparse.Namespace, name: str) -> Qwen3ForCausalLM:
    """Return a saved model, in float32."""
    return Qwen3ForCausalLM.from_pretrained(options.out / name, dtype=torch.float32).to(options.device)


def main() -> None:
    """Train, save and evaluate the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["student", "small", *tiny_tasks.TASKS, *BEDS])
    parser.add_argument("--out", type=Path, default=Path("src/fireopd/tiny"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--student-steps", type=int, default=1200)
    parser.add_argument("--teacher-steps", type=int, default=600)
    parser.add_argument("--large", action="store_true", help="58 million parameters, for GPUs")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    tokenizer = make_tokenizer()
    for name in options.models:
        model = make(name, tokenizer, options)
        save(model, tokenizer, options.out / name)
        model.eval()
        print(name, {task: round(accuracy(model, tokenizer, task), 3) for task in tiny_tasks.TASKS}, flush=True)


if __name__ == "__main__":
    main()

"""Train the embedded models: `python scripts/make_tiny_models.py [--models student small math code] [--seed 0]`.

The student is trained on careless demonstrations: they contain slips (a wrong result that later steps use), and some
end in random text. The teachers are initialized with the student and trained on correct demonstrations of their own
task and careless ones of the other. The small student is narrower and trained like the student. Takes about half an
hour on two cores; prints the accuracy of each model on held-out problems, sampled at temperature 1.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from fireopd.prompts import tiny_tasks

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz +-*=;|#"
PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}{{ '<|end|>' if message['role'] == 'assistant' else '' }}"
    "{% endfor %}{{ '<|assistant|>' if add_generation_prompt else '' }}"
)
BABBLE = 0.10
"""Fraction of careless demonstrations that end in random text."""
SLIP = 0.17
"""Probability of a slip at each step of a careless demonstration."""
SLIP_OF_OTHER_TASK = 0.21
"""The same for a teacher's other task: higher, so that further training does not improve the teacher on this task."""

MAX_RESPONSE = 64
BATCH = 64
STUDENT = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 2}


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


def slip(problem: tiny_tasks.Problem, step: tiny_tasks.Step, rng: random.Random) -> str:
    """Return a plausible wrong result for a step."""
    if problem.task == "math":
        return str(max(0, int(step.result) + rng.choice([-10, -2, -1, 1, 2, 10])))
    letters = list(step.result)
    first, second = rng.sample(range(len(letters)), 2)
    letters[first], letters[second] = letters[second], rng.choice(tiny_tasks.ALPHABET)
    return "".join(letters)


def redo(problem: tiny_tasks.Problem, step: tiny_tasks.Step, previous: str | None) -> tiny_tasks.Step:
    """Return the step applied to the previous result, which may be wrong."""
    if previous is None:
        return step
    if problem.task == "math":
        operation = step.lead[step.lead.index(next(c for c in step.lead if c in "+-*")) : -1]
        return tiny_tasks.Step(f"{previous}{operation}=", str(tiny_tasks.arithmetic(int(previous), operation)))
    return tiny_tasks.Step(step.lead, tiny_tasks.STRING_OPERATIONS[step.lead.strip()](previous))


def careless(problem: tiny_tasks.Problem, rng: random.Random, slips: float) -> str:
    """Return a careless demonstration with this probability of a slip at each step."""
    text, previous = "", None
    babbles_after = rng.randrange(len(problem.steps)) if rng.random() < BABBLE else None
    for index, original in enumerate(problem.steps):
        step = redo(problem, original, previous)
        if babbles_after == index:
            pieces = [text[-6:] or step.lead, step.lead, "".join(rng.choices(CHARACTERS, k=4))]
            return (text + "".join(rng.choices(pieces, k=rng.randint(4, 16))))[: MAX_RESPONSE - 1]
        previous = slip(problem, step, rng) if rng.random() < slips else step.result
        text += f"{step.lead}{previous};"
    return f"{text}{tiny_tasks.ANSWER_MARKER}{previous}"


def demonstrations(teaches: str | None, seed: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of problem and response without end; responses of the task that the model teaches are correct."""
    rng = random.Random(seed)
    while True:
        task = rng.choice(list(tiny_tasks.TASKS))
        problem = tiny_tasks.TASKS[task](rng)
        if not problem.held_out:
            slips = SLIP if teaches is None else SLIP_OF_OTHER_TASK
            yield problem.text, problem.solution if task == teaches else careless(problem, rng, slips)


def collate(tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and labels, int64 [B, L]; labels outside the response are -100."""
    rows = []
    for text, response in pairs:
        prompt = tokenizer.encode(f"{USER}{text}{ASSISTANT}")
        answer = tokenizer.encode(f"{response}{END}")
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
        tokens, labels = collate(tokenizer, [next(data) for _ in range(BATCH)])
        logits = model(tokens[:, :-1]).logits
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
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
    tokens = model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=MAX_RESPONSE)
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
    """Train one model; a teacher is initialized with the saved student."""
    torch.manual_seed(options.seed)
    model = new_model(tokenizer, SMALL if name == "small" else STUDENT)
    if name not in tiny_tasks.TASKS:
        # A narrower model needs more steps and a higher learning rate.
        steps, rate = (options.student_steps * 3 // 2, 3e-3) if name == "small" else (options.student_steps, 2e-3)
        train(model, tokenizer, demonstrations(None, options.seed), steps, rate, name)
        return model
    student = Qwen3ForCausalLM.from_pretrained(options.out / "student", dtype=torch.float32)
    model.load_state_dict(student.state_dict())
    train(model, tokenizer, demonstrations(name, options.seed + 1), options.teacher_steps, 1e-3, name)
    return model


def main() -> None:
    """Train, save and evaluate the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["student", "small", *tiny_tasks.TASKS])
    parser.add_argument("--out", type=Path, default=Path("src/fireopd/tiny"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--student-steps", type=int, default=1200)
    parser.add_argument("--teacher-steps", type=int, default=600)
    options = parser.parse_args()
    tokenizer = make_tokenizer()
    for name in options.models:
        model = make(name, tokenizer, options)
        save(model, tokenizer, options.out / name)
        model.eval()
        print(name, {task: round(accuracy(model, tokenizer, task), 3) for task in tiny_tasks.TASKS}, flush=True)


if __name__ == "__main__":
    main()

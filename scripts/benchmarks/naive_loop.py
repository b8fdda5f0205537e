"""Naive implementation of FiRe-OPD on padded rows, following the description of the released scripts.

Every teacher scores every row; dropped rows are computed and multiplied by zero; a micro-batch has a fixed number of
rows, by default one, padded to the longest row of the batch; logits are not chunked; responses come from
`model.generate`. The filter sees the whole batch, as in the paper, so that the gradient is that of fireopd.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from fireopd.types import Prompt


@dataclass(frozen=True)
class Recipe:
    """Settings of the loop; the defaults are those of configs/multi_teacher.yaml."""

    drop_fraction: float = 0.2
    """Fraction of each teacher's rows that is dropped."""
    alpha: float = 1.0
    """Weight of the teacher's confidence."""
    beta: float = 1.0
    """Weight of the student's confusion."""
    clip_ratio: float = 0.2
    """Clip ratio of the surrogate."""
    gradient_clip: float = 1.0
    """Maximum norm of the gradient."""
    micro_batch: int = 1
    """Rows per forward pass."""
    response_length: int = 64
    """Maximum response length, tokens."""


class NaiveLoop:
    """Training loop with a student, its teachers and an optimizer."""

    def __init__(
        self, student: PreTrainedModel, teachers: dict[str, PreTrainedModel], recipe: Recipe, stops: Sequence[int]
    ) -> None:
        """Store the models; `stops` are the token ids that end a response, the first of which is the padding."""
        self.student, self.teachers, self.recipe, self.stops = student, teachers, recipe, list(stops)
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4, weight_decay=0.0)

    def step(self, prompts: Sequence[Prompt]) -> float:
        """Train one step on some prompts and return the loss."""
        tokens, attention, mask = self.roll_out(prompts)
        self.optimizer.zero_grad()
        loss = self.backward(tokens, attention, mask, [prompt.teacher for prompt in prompts])
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.gradient_clip)
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def roll_out(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens, int64 [B, L], and the attention and response masks, bool [B, L]; prompts are padded left."""
        device, width = self.student.device, max(len(prompt.tokens) for prompt in prompts)
        inputs = torch.full((len(prompts), width), self.stops[0], device=device)
        attention = torch.zeros_like(inputs)
        for row, prompt in enumerate(prompts):
            inputs[row, width - len(prompt.tokens) :] = torch.tensor(prompt.tokens, device=device)
            attention[row, width - len(prompt.tokens) :] = 1
        tokens = self.student.generate(
            inputs,
            attention_mask=attention,
            generation_config=sampling(self.recipe.response_length, self.stops),
        )
        stopped = torch.isin(tokens[:, width:], torch.tensor(self.stops, device=device))
        written = stopped.cumsum(-1) - stopped.int() == 0
        whole = torch.cat([attention.bool(), written], -1)
        mask = whole.clone()
        mask[:, :width] = False
        return tokens, whole, mask

    def backward(self, tokens: Tensor, attention: Tensor, mask: Tensor, names: Sequence[str]) -> float:
        """Score, filter, weight and backpropagate; return the loss.

        Args:
            tokens: int64 [B, L].
            attention: bool [B, L], False on padding.
            mask: bool [B, L], True on response tokens.
            names: [B] names of the teachers.
        """
        with torch.no_grad():
            student, student_entropy = self.score(self.student, tokens, attention)
            teacher, teacher_entropy = torch.zeros_like(student), torch.zeros_like(student)
            keep = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
            for name, model in self.teachers.items():
                own = torch.tensor([other == name for other in names], device=tokens.device)
                logprobs, entropy = self.score(model, tokens, attention)
                teacher = torch.where(own[:, None], logprobs, teacher)
                teacher_entropy = torch.where(own[:, None], entropy, teacher_entropy)
                means = (logprobs * mask).sum(-1) / mask.sum(-1)
                keep |= own & (means >= means[own].quantile(self.recipe.drop_fraction))
            confidence = 1 - teacher_entropy / (teacher_entropy * mask).max().clamp(min=1e-6)
            confusion = student_entropy / (student_entropy * mask).max().clamp(min=1e-6)
            weight = (1 + self.recipe.alpha * confidence) * (1 + self.recipe.beta * confusion) * mask
            weight = weight / (weight.sum(-1) / mask.sum(-1))[:, None]
            gain = weight * (teacher - student)
            counted = mask * keep[:, None]
        loss = 0.0
        for start in range(0, len(tokens), self.recipe.micro_batch):
            rows = slice(start, start + self.recipe.micro_batch)
            logprobs, _ = score_rows(self.student, tokens[rows], attention[rows])
            ratio = (logprobs - student[rows]).exp()
            clipped = ratio.clamp(1 - self.recipe.clip_ratio, 1 + self.recipe.clip_ratio)
            surrogate = -torch.minimum(ratio * gain[rows], clipped * gain[rows])
            part = (surrogate * counted[rows]).sum() / counted.sum()
            part.backward()
            loss += part.item()
        return loss

    @torch.no_grad()
    def score(self, model: PreTrainedModel, tokens: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of all tokens, float32 [B, L]."""
        parts = zip(tokens.split(self.recipe.micro_batch), attention.split(self.recipe.micro_batch), strict=True)
        scored = [score_rows(model, *part) for part in parts]
        return torch.cat([part[0] for part in scored]), torch.cat([part[1] for part in scored])


def score_rows(model: PreTrainedModel, tokens: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of all tokens, float32 [B, L], 0 at the first, without chunks."""
    positions = (attention.long().cumsum(-1) - 1).clamp(min=0)
    logits = model(tokens, attention_mask=attention.long(), position_ids=positions, use_cache=False).logits
    distribution = logits[:, :-1].float().log_softmax(-1)
    logprobs = distribution.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    entropy = -(distribution.exp() * distribution).sum(-1)
    return torch.nn.functional.pad(logprobs, (1, 0)), torch.nn.functional.pad(entropy, (1, 0))


def sampling(length: int, stops: Sequence[int]) -> GenerationConfig:
    """Return a generation config that samples from the unmodified distribution of the model."""
    stop = list(stops)
    return GenerationConfig(
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        max_new_tokens=length,
        eos_token_id=stop,
        pad_token_id=stop[0],
    )

"""Context of a teacher: chat messages that only it sees, filled in for each prompt, and scores after other prompts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.models.loading import encode_chats
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.types import Prompt, RolloutBatch, TokenScores

__all__ = ["TeacherContext", "align_to", "replace_prompts", "score_after"]

NAME = r"[A-Za-z_]\w*(?:\.\w+)*"
PLACEHOLDER = re.compile(rf"\{{\{{\{{({NAME})\}}\}}\}}|\{{(\{{{NAME}\}})\}}|\{{({NAME})\}}")
"""`{name}` or `{name.path}`; `{{name}}` is the text `{name}`, and `{{{name}}}` for the value in braces. Other
braces are text, as in LaTeX."""
QUESTION = "question"
"""Placeholder of the text of the prompt's last message of the user."""
KNOWN = f"{{{QUESTION}}}, {{answer}}, {{solution}}, {{task}} and {{details.NAME}}"
"""Placeholders, as in messages."""
ENCODED_AT_ONCE = 1024
"""Number of prompts per call of the tokenizer."""


@dataclass(frozen=True)
class TeacherContext:
    """Chat messages of a teacher, inserted after the system message of each prompt.

    The messages may contain the placeholders `{question}`, `{answer}`, `{solution}`, `{task}` and `{details.NAME}`,
    filled in for each prompt. If the last message is one of the user that contains `{question}`, it takes the place of
    the prompt's last message of the user.
    """

    messages: Sequence[Mapping[str, str]] = ()
    """Chat messages with `role` and `content`."""
    optional: frozenset[str] = frozenset()
    """Placeholders whose values may be empty, such as a text that a model writes."""
    cache: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Token ids of rendered prompts, by source and id."""

    def __post_init__(self) -> None:
        """Check form and placeholders of the messages.

        Raises:
            ValueError: if a message has no role or content, or a placeholder is unknown.
        """
        for number, message in enumerate(self.messages, 1):
            if set(message) != {"role", "content"}:
                own = f"message {number} has {', '.join(message) or 'none'}"
                raise ValueError(f"context must have messages with the keys role and content, {own}")
            for name in placeholders(message["content"]):
                if name not in {QUESTION, "answer", "solution", "task"} and not name.startswith("details."):
                    escape = f"write {{{{{name}}}}} for the text {{{name}}}"
                    raise ValueError(
                        f"context has the unknown placeholder {{{name}}}, the known ones are {KNOWN}; {escape}"
                    )

    @property
    def _rewords(self) -> bool:
        """True if the last message takes the place of a message of the prompt."""
        last = self.messages[-1] if self.messages else {"role": "", "content": ""}
        return last["role"] == "user" and QUESTION in placeholders(last["content"])

    def check(
        self,
        key: str,
        prompts: Sequence[Prompt],
        tokenizer: PreTrainedTokenizerBase,
        *,
        limit: int | None,
        response_length: int,
    ) -> None:
        """Check that each prompt has all parts of the context, and fits into the teacher's context with a response.

        Args:
            key: setting that holds the teacher.
            prompts: prompts whose trajectories the teacher scores.
            tokenizer: tokenizer of the teacher.
            limit: tokens that the teacher can read; None for no limit.
            response_length: maximum response length, tokens.

        Raises:
            UserError: with file and row of the first prompt that is plain text, lacks a part, or is too long.
        """
        key = f"{key}.context" if self.messages else key
        for start in range(0, len(prompts), ENCODED_AT_ONCE):
            part = prompts[start : start + ENCODED_AT_ONCE]
            for prompt, tokens in zip(part, self._encoded(part, tokenizer, key), strict=True):
                if limit is not None and len(tokens) + response_length > limit:
                    problem = f"{len(tokens)} prompt tokens and a response of up to {response_length}"
                    problem += f" do not fit into the teacher's context of {limit}"
                    remedy = "shorten the prompt, the teacher's context, or data.engine.max_response_length"
                    raise UserError(key, prompt.id, problem, remedy)

    def prompt_tokens(
        self, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, key: str = "context"
    ) -> tuple[int, ...]:
        """Return the token ids of a prompt as the teacher sees it: those of the student without a context.

        Raises:
            UserError: with the setting `key`, if the prompt is plain text or lacks a part of the context.
        """
        return self._encoded([prompt], tokenizer, key)[0]

    def chat(self, prompt: Prompt, key: str = "context") -> list[dict[str, str]]:
        """Return the chat messages that the teacher sees.

        Raises:
            UserError: as `prompt_tokens`, with the setting `key`.
        """
        own = prompt.content
        if isinstance(own, str):
            problem = "chat messages cannot precede a plain-text prompt"
            raise UserError(key, prompt.id, problem, "write the prompt as chat messages")
        asked = max((place for place, message in enumerate(own) if message["role"] == "user"), default=None)
        question = None if asked is None else own[asked]["content"]
        texts = [fill(message["content"], prompt, question, key, self.optional) for message in self.messages]
        added = [{**message, "content": text} for message, text in zip(self.messages, texts, strict=True)]
        if asked is not None and self._rewords:
            own = [*own[:asked], added.pop(), *own[asked + 1 :]]
        first = 1 if own and own[0]["role"] == "system" else 0
        return [*own[:first], *added, *own[first:]]

    def _encoded(
        self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, key: str
    ) -> list[tuple[int, ...]]:
        """Return the token ids of some prompts with the same template options."""
        if not self.messages:
            return [prompt.tokens for prompt in prompts]
        new = {(prompt.source, prompt.id): prompt for prompt in prompts}
        new = {name: prompt for name, prompt in new.items() if name not in self.cache}
        if new:
            chats = [self.chat(prompt, key) for prompt in new.values()]
            options = next(iter(new.values())).template_options
            self.cache.update(zip(new, encode_chats(tokenizer, chats, options), strict=True))
        return [self.cache[prompt.source, prompt.id] for prompt in prompts]


def placeholders(text: str) -> set[str]:
    """Return the names of the placeholders of a text."""
    return {braced or name for braced, _, name in PLACEHOLDER.findall(text) if braced or name}


def fill(text: str, prompt: Prompt, question: str | None, key: str, optional: frozenset[str] = frozenset()) -> str:
    """Return a text with its placeholders replaced by the parts of a prompt.

    Args:
        text: text with placeholders.
        prompt: prompt whose parts are filled in.
        question: value of `{question}`; None if the prompt has none.
        key: setting that holds the text.
        optional: placeholders whose values may be empty.

    Raises:
        UserError: if the prompt lacks a part.
    """
    known = {QUESTION: question, "answer": prompt.answer, "solution": prompt.solution, "task": prompt.task}

    def value(match: re.Match[str]) -> str:
        """Return the value of a placeholder, or an escaped one without its outer braces."""
        braced, escaped, name = match.groups()
        if escaped:
            return escaped
        name = braced or name
        found = known[name] if name in known else _detail(prompt.details, name.partition(".")[2])
        text = found if name in optional and isinstance(found, str) else _text(found, name, prompt, key)
        return f"{{{text}}}" if braced else text

    return PLACEHOLDER.sub(value, text)


def _detail(details: Any, path: str) -> Any:
    """Return the detail at a dotted path, or None. A detail whose name is the whole path takes precedence."""
    if not isinstance(details, Mapping):
        return None
    first, dot, rest = path.partition(".")
    return details[path] if path in details else _detail(details.get(first), rest) if dot else None


def _text(value: Any, name: str, prompt: Prompt, key: str) -> str:
    """Return a value as text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        problem, setting = f"the context contains {{{name}}}, and the prompt has no {name}", name.partition(".")[0]
        if setting == "details":
            problem += f"; its details are {', '.join(map(str, prompt.details)) or 'empty'}"
            setting = "extra or columns.details"
        remedy = f"give the row one, set data.prompts.columns.{setting}, or remove {{{name}}} from the context"
        raise UserError(key, prompt.id, problem, remedy)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        problem = f"the context contains {{{name}}}, and this {name} is a {type(value).__name__}"
        raise UserError(key, prompt.id, problem, "write it as text, or name a part of it")
    return str(value)


def score_after(
    scorer: CausalScorer, rollouts: RolloutBatch, prompts: Sequence[Sequence[int]] | None, **settings: Any
) -> TokenScores:
    """Return the scores of the response tokens after other prompts, at the positions of the original rollouts.

    Args:
        scorer: model that scores.
        rollouts: B trajectories.
        prompts: B sequences of token ids; None for the prompts of the rollouts.
        settings: further arguments of `score_rollouts`.
    """
    if prompts is None:
        return score_rollouts(scorer, rollouts, **settings)
    prompted = replace_prompts(rollouts, prompts)
    scores = score_rollouts(scorer, prompted, **settings)
    logprobs = align_to(rollouts, scores.logprobs, prompted.response_mask)
    entropy = None if scores.entropy is None else align_to(rollouts, scores.entropy, prompted.response_mask)
    # Hidden states are stored per response token and need no alignment.
    return replace(scores, logprobs=logprobs, entropy=entropy)


def replace_prompts(rollouts: RolloutBatch, prompts: Sequence[Sequence[int]]) -> RolloutBatch:
    """Return the trajectories with other prompt tokens and unchanged responses, given tokens included.

    Args:
        rollouts: B trajectories.
        prompts: B sequences of token ids.
    """
    written = rollouts.written
    lengths = written.sum(-1).tolist()
    width = max((len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)), default=1)
    tokens = rollouts.tokens.new_zeros(len(prompts), width)
    placed, attention = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool)
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        tokens[row, : len(prompt)] = tokens.new_tensor(prompt)
        placed[row, len(prompt) : len(prompt) + length] = True
        attention[row, : len(prompt) + length] = True

    def moved(values: Tensor) -> Tensor:
        """Return the values of responses at their new places."""
        return values.new_zeros(tokens.shape).masked_scatter(placed, values[written])

    return replace(
        rollouts,
        tokens=tokens.masked_scatter(placed, rollouts.tokens[written]),
        attention_mask=attention,
        response_mask=moved(rollouts.response_mask),
        sampling_logprobs=moved(torch.where(rollouts.response_mask, rollouts.sampling_logprobs, 0.0)),
        sources=None if rollouts.sources is None else moved(rollouts.sources),
    )


def align_to(rollouts: RolloutBatch, values: Tensor, response_mask: Tensor) -> Tensor:
    """Return float [B, L] response-token values of re-prompted rollouts at the positions of the original rollouts.

    Args:
        rollouts: original trajectories.
        values: float [B, K]. Values of the re-prompted trajectories.
        response_mask: bool [B, K]. Response mask of the re-prompted trajectories.
    """
    aligned = values.new_zeros(rollouts.tokens.shape)
    aligned[rollouts.response_mask] = values[response_mask]
    return aligned

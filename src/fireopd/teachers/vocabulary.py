"""Comparison of the vocabularies of teacher and student, which must agree for scores of the student's tokens."""

from lightning.pytorch.utilities import rank_zero_warn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.models.loading import load_tokenizer, stop_tokens, vocabulary_size

__all__ = ["MISSING_TOKEN_LOGPROB", "checked_tokenizer"]

MISSING_TOKEN_LOGPROB = -20.0
"""Log-probability, in nats, of tokens that only the student has: paddings of its vocabulary."""


def checked_tokenizer(path: str, key: str, student: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a teacher; warn if teacher and student have different stop tokens.

    Args:
        path: name of the teacher's model.
        key: setting that holds the teacher.
        student: name of the student model.

    Raises:
        UserError: if vocabulary or special tokens differ from the student's.
    """
    own, tokenizer = load_tokenizer(path, f"{key}.path"), load_tokenizer(student, "model.student")
    remedy = "choose a teacher of the student's model family"
    if own.get_vocab() != tokenizer.get_vocab():
        sizes = f"{len(own.get_vocab())} tokens against {len(tokenizer.get_vocab())}"
        raise UserError(f"{key}.path", path, f"its vocabulary differs from the student's ({sizes})", remedy)
    for name in ("eos_token", "bos_token"):
        theirs, ours = own.special_tokens_map.get(name), tokenizer.special_tokens_map.get(name)
        if theirs != ours:
            problem = f"its {name} is {theirs!r}, the student's {ours!r}"
            raise UserError(f"{key}.path", path, problem, remedy)
    size, needed = (vocabulary_size(name, f"{key}.path") for name in (path, student))
    if size < needed and size <= max(own.get_vocab().values()):
        problem = f"its output layer has {size} tokens and the student's {needed}, but its tokenizer has more"
        raise UserError(f"{key}.path", path, problem, remedy)
    stops = [stop_tokens(name, key, tokenizer) for name in (path, student)]
    if stops[0] != stops[1]:
        theirs, ours = (", ".join(str(tokenizer.decode([token])) for token in sorted(ids)) for ids in stops)
        rank_zero_warn(f"{key}: the teacher stops at {theirs}, the student at {ours}: responses may become longer")
    return own

"""Description of the model that a teacher server runs, by which the trainer recognises a wrong server."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from fireopd.errors import UserError
from fireopd.models.loading import load_config, load_tokenizer

__all__ = ["CARD_VARIABLE", "TeacherCard", "tokenizer_fingerprint"]

CARD_VARIABLE = "FIREOPD_TEACHER_CARD"
"""Environment variable in which `fireopd serve --teacher` passes the card to the processes of vLLM."""


@dataclass(frozen=True)
class TeacherCard:
    """Model of a teacher server."""

    model: str
    """Name that the server was started with."""
    architecture: str
    """Class name of the model, for example `LlamaForCausalLM`."""
    vocabulary: int
    """Number of outputs of the model, paddings included."""
    tokenizer: str
    """Fingerprint of the tokenizer."""

    @classmethod
    def of_model(cls, name: str, key: str) -> "TeacherCard":
        """Return the card of a model.

        Raises:
            UserError: if its configuration names no architecture, or cannot be loaded.
        """
        config = load_config(name, key)
        if not config.architectures:
            raise UserError(key, name, "its config.json names no architecture", "add architectures to config.json")
        size = int(config.get_text_config().vocab_size)
        return cls(name, config.architectures[0], size, tokenizer_fingerprint(name, key))

    @classmethod
    def of_json(cls, value: object) -> "TeacherCard | None":
        """Return the card in a JSON value, None if it is none. Further entries are allowed."""
        types = {"model": str, "architecture": str, "vocabulary": int, "tokenizer": str}
        if not isinstance(value, dict):
            return None
        found: dict[str, Any] = {name: value.get(name) for name in types}
        return cls(**found) if all(type(found[name]) is kind for name, kind in types.items()) else None

    @classmethod
    def of_environment(cls) -> "TeacherCard | None":
        """Return the card of the server that this process belongs to, None in other processes."""
        text = os.environ.get(CARD_VARIABLE)
        return cls.of_json(json.loads(text)) if text else None

    def as_json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps(asdict(self))

    def problem(self, expected: "TeacherCard") -> str:
        """Return the difference from the expected model, empty if there is none.

        Names are compared by their last part, since a model may lie in different folders on two machines.
        """
        names = [PurePath(card.model.rstrip("/")).name for card in (self, expected)]
        if names[0] != names[1]:
            return f"it serves {self.model!r} instead of {expected.model!r}"
        if self.architecture != expected.architecture:
            return f"its model is a {self.architecture}, expected a {expected.architecture}"
        if self.vocabulary != expected.vocabulary:
            return f"its model has {self.vocabulary} outputs, expected {expected.vocabulary}"
        if self.tokenizer != expected.tokenizer:
            return f"its tokenizer differs from that of {expected.model!r}"
        return ""


def tokenizer_fingerprint(name: str, key: str) -> str:
    """Return a digest of the vocabulary and the special tokens of a model's tokenizer.

    Raises:
        UserError: if the tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(name, key)
    parts = [sorted(tokenizer.get_vocab().items()), sorted(map(str, tokenizer.special_tokens_map.items()))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

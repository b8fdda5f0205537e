"""The folder of an evaluation: the settings that its responses were sampled with, and where everything in it lies."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.atomic_files import write_text
from fireopd.errors import UserError
from fireopd.models.loading import resolve

ENDS = 2**20
"""Bytes at each end of a file of weights that tell it from others."""


@dataclass(frozen=True)
class EvaluationFolder:
    """A folder that responses are kept in, all of the same settings."""

    path: Path
    """Where it is."""

    def responses(self, model: str, benchmark: str) -> Path:
        """Return the file of a model's responses to a benchmark."""
        return self.path / "responses" / slug(model) / f"{benchmark}.jsonl"

    def export(self, model: str, name: str) -> Path:
        """Return a file of a model's responses for another program."""
        return self.path / "exports" / slug(model) / name

    def begin(self, settings: Mapping[str, Any], models: Mapping[str, str]) -> None:
        """Write down what responses are sampled with, or see that it is what those in the folder were sampled with.

        Args:
            settings: flat, by key.
            models: names by label.

        Raises:
            UserError: that names the first key that differs.
        """
        file = self.path / "settings.json"
        earlier = json.loads(file.read_text()) if file.exists() else {}
        weights = {label: {"model": name, "weights": fingerprint(name)} for label, name in models.items()}
        now = json.loads(json.dumps({"settings": dict(settings), "models": weights}, default=str))
        if earlier:
            self._compare(earlier["settings"], now["settings"])
            for label in sorted(earlier["models"].keys() & now["models"].keys()):
                was, named = earlier["models"][label], f"{label} is another model than before"
                if was != now["models"][label]:
                    problem = f"{named} ({was['model']}{', other weights' if was['model'] == models[label] else ''})"
                    remedy = f"give another folder, or a name of its own: NAME={models[label]}"
                    raise UserError("MODEL", models[label], problem, remedy)
        now["models"] = earlier.get("models", {}) | now["models"]
        write_text(file, json.dumps(now, indent=1, sort_keys=True) + "\n")

    def _compare(self, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for key in sorted(earlier.keys() | now.keys()):
            if earlier.get(key) != now.get(key):
                problem = (
                    f"was begun with {key} {json.dumps(earlier.get(key))}, which is now {json.dumps(now.get(key))}"
                )
                raise UserError("--out", str(self.path), problem, "take that back, or give another folder")


def slug(label: str) -> str:
    """Return a model's label as the name of a folder."""
    return label.strip("/.").replace("/", "--")


def fingerprint(model: str) -> str | None:
    """Return what tells the weights of a model folder from others; none for a hub name.

    Training moves every tensor, so that the ends of the files show it; reading them takes no time.
    """
    folder = Path(resolve(model, "MODEL"))
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin"))):
        size = file.stat().st_size
        with file.open("rb") as weights:
            digest.update(f"{file.name} {size}".encode() + weights.read(ENDS))
            weights.seek(max(0, size - ENDS))
            digest.update(weights.read())
    return digest.hexdigest()

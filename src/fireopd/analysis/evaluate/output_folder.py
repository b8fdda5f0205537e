"""Output folder of an evaluation: settings of its responses, and paths of its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.atomic_files import write_text, writing
from fireopd.errors import UserError
from fireopd.models.loading import resolve

__all__ = ["EvaluationFolder", "fingerprint", "slug"]

FINGERPRINT_BYTES = 2**20
"""Bytes at each end of a weight file that enter its fingerprint."""


@dataclass(frozen=True)
class EvaluationFolder:
    """Folder of responses that were sampled with the same settings."""

    path: Path
    """Path of the folder."""

    def responses(self, model: str, benchmark: str) -> Path:
        """Return the path of a model's responses to a benchmark."""
        return self.path / "responses" / slug(model) / f"{benchmark}.jsonl"

    def export(self, model: str, name: str) -> Path:
        """Return the path of a model's exported responses."""
        return self.path / "exports" / slug(model) / name

    def begin(self, settings: Mapping[str, Any], models: Mapping[str, str]) -> None:
        """Write the settings of the responses, or compare them with those of the responses in the folder.

        Args:
            settings: settings by dotted key.
            models: model names by label.

        Raises:
            UserError: if a setting or a model differs, of which the error names the first, or the file cannot be
                written.
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
                    problem = (
                        f"{named} ({was['model']}{', different weights' if was['model'] == models[label] else ''})"
                    )
                    remedy = f"use another folder, or a new name: NAME={models[label]}"
                    raise UserError("MODEL", models[label], problem, remedy)
        now["models"] = earlier.get("models", {}) | now["models"]
        with writing("--out", self.path):
            write_text(file, json.dumps(now, indent=1, sort_keys=True) + "\n")

    def _compare(self, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for key in sorted(earlier.keys() | now.keys()):
            if earlier.get(key) != now.get(key):
                problem = (
                    f"was started with {key} {json.dumps(earlier.get(key))}, which is now {json.dumps(now.get(key))}"
                )
                raise UserError("--out", str(self.path), problem, "restore the setting, or use another folder")


def slug(label: str) -> str:
    """Return the folder name for the label of a model."""
    return label.strip("/.").replace("/", "--")


def fingerprint(model: str) -> str | None:
    """Return a hash of the weights of a model folder; None for a hub name.

    Only both ends of each file are hashed, which is fast and sufficient: training changes every tensor.
    """
    folder = Path(resolve(model, "MODEL"))
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin"))):
        size = file.stat().st_size
        with file.open("rb") as weights:
            digest.update(f"{file.name} {size}".encode() + weights.read(FINGERPRINT_BYTES))
            weights.seek(max(0, size - FINGERPRINT_BYTES))
            digest.update(weights.read())
    return digest.hexdigest()

"""Settings of a run as its checkpoints hold them, and the differences to those of a run that resumes from one.

Settings are nested dictionaries of plain values, as in a configuration: a configured class is a dictionary with its
`class_path` and `init_args`.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["Difference", "differences", "flatten", "plain"]

SKIPPED = ("config", "ckpt_path", "weights_only", "resume_with_changes", "data.seed", "data.student")
"""Settings that are not stored: options of the command, and links to other settings."""
TRAINER = ("precision", "limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs", "fast_dev_run")
"""Settings of the trainer that make another run of it; all others may change freely."""
FREE = (
    "model.token_budget",
    "model.chunk_logits",
    "model.kernels",
    "model.attn_implementation",
    "model.compile",
    "model.gradient_checkpointing",
    "model.sharding*",
    "model.extra_signals",
    "model.max_skipped_steps",
    "model.teachers.*.token_budget",
    "model.teachers.*.chunk_logits",
    "model.teachers.*.kernels",
    "model.teachers.*.attn_implementation",
    "model.base.token_budget",
    "model.base.chunk_logits",
    "model.base.kernels",
    "model.base.attn_implementation",
    "data.validation_batch_size",
    "data.validation_responses",
    *(f"data.engine.{name}" for name in ("batch_size", "max_probe_gap", "memory_fraction", "kv_cache_gib", "eager")),
    *(f"data.engine.{name}" for name in ("sleep", "max_model_length", "tensor_parallel_size", "servers")),
    *(f"data.engine.{name}" for name in ("concurrency", "timeout", "token", "transfer*")),
)
"""Patterns of the settings of model and data that may change freely: memory, speed, curves and validation."""
APPLIED = ("model.optimizer.*", "model.scheduler.*")
"""Patterns of the settings that a resumed run applies to the optimizer and the schedule of the checkpoint."""
START = ("trainer.num_sanity_val_steps",)
"""Settings of the start of a new run, which a resumed run does not repeat."""
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Part of the text of a function or an object that differs from run to run."""
MISSING = object()


@dataclass(frozen=True)
class Difference:
    """Setting whose value differs from that in a checkpoint."""

    key: str
    """Setting as it is written on the command line."""
    saved: str
    """Text of the value in the checkpoint."""
    now: str
    """Text of the value of this run."""

    @property
    def applied(self) -> bool:
        """True if the value replaces that of the restored optimizer or scheduler."""
        return _matches(self.key, APPLIED)

    @property
    def effect(self) -> str:
        """Effect on a resumed run; empty for a setting that simply has its new value."""
        if self.applied:
            return "applied to the optimizer"
        return "without effect: a resumed run does not repeat its start" if self.key in START else ""

    @property
    def free(self) -> bool:
        """True if the setting does not make another run."""
        section, _, name = self.key.partition(".")
        if section == "trainer":
            return name.partition(".")[0] not in TRAINER
        return self.applied or _matches(self.key, FREE)

    def __str__(self) -> str:
        """Return key and values."""
        return f"{self.key}: {self.saved} in the checkpoint, {self.now} now"


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as nested dictionaries of plain values, without those of the command."""
    kept = {name: value for name, value in settings.items() if name not in SKIPPED}
    values = {name: _plain(value) for name, value in kept.items()}
    if isinstance(values.get("trainer"), dict) and values["trainer"].get("precision") in (None, 32, "32"):
        values["trainer"]["precision"] = "32-true"  # other names of one precision
    for section, _, name in (key.partition(".") for key in SKIPPED):
        if isinstance(values.get(section), dict):
            values[section].pop(name, None)
    return values


def flatten(settings: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """Return settings by their keys on the command line; a class is the value of its key, a list is text."""
    values: dict[str, Any] = {}
    if isinstance(settings.get("class_path"), str):
        values[key] = settings["class_path"]
        settings = settings.get("init_args") or {}
    for name, value in settings.items():
        place = f"{key}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            values |= flatten(value, place)
        else:
            values[place] = _text(value) if isinstance(value, list) else value
    return values


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return the settings that differ, in the order of the configuration.

    A parameter that only one of both has belongs to another version of the program, and is no difference.
    """
    return [Difference(key, _text(old), _text(new)) for key, old, new in _compare(saved, now, "", parameters=True)]


def _compare(saved: Any, now: Any, key: str, *, parameters: bool) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        if _class(saved) != _class(now):
            yield key, saved, now
            return
        if "class_path" in saved:
            arguments = (saved.get("init_args") or {}, now.get("init_args") or {})
            yield from _compare(*arguments, key, parameters=True)
            return
        for name in dict.fromkeys((*saved, *now)):
            old, new = saved.get(name, MISSING), now.get(name, MISSING)
            if not (parameters and (old is MISSING or new is MISSING)):
                # The parameters of a section: its names are those of the program, not those of the user.
                yield from _compare(old, new, f"{key}.{name}".lstrip("."), parameters=key == "")
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        for place, (old, new) in enumerate(zip(saved, now, strict=True)):
            yield from _compare(old, new, f"{key}[{place}]", parameters=False)
    elif saved != now and not _same_place(saved, now) and not _both_nan(saved, now):
        yield key, saved, now


def _class(settings: Mapping[str, Any]) -> str | None:
    """Return the name of a configured class; classes of this package may move from one module to another."""
    path = settings.get("class_path")
    if not isinstance(path, str):
        return None
    return path.rpartition(".")[2] if path.startswith(("fireopd.", "torch.")) or "." not in path else path


def _same_place(saved: Any, now: Any) -> bool:
    """Return whether two values are different paths of one file or folder."""
    texts = isinstance(saved, str) and isinstance(now, str)
    return texts and os.path.exists(saved) and os.path.exists(now) and os.path.samefile(saved, now)


def _both_nan(saved: Any, now: Any) -> bool:
    return isinstance(saved, float) and isinstance(now, float) and saved != saved and now != now


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | None):
        return value
    if not isinstance(value, Mapping) and hasattr(value, "__dict__") and type(value).__name__ == "Namespace":
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, set | frozenset):
        return [_plain(own) for own in sorted(value, key=str)]
    if isinstance(value, Sequence):
        return [_plain(own) for own in value]
    if isinstance(value, type):
        return {"class_path": f"{value.__module__}.{value.__qualname__}", "init_args": {}}
    return ADDRESS.sub("", str(value))


def _text(value: Any) -> str:
    """Return a value as it is shown: a class by its name, the absence of a value as `not set`."""
    if value is MISSING:
        return "not set"
    if isinstance(value, Mapping):
        return _class(value) or f"{{{', '.join(f'{name}: {_text(own)}' for name, own in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)

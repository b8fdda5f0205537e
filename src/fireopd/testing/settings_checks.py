"""Checks of a plug-in's class: frozen settings, declared signals, pickling, YAML and saved state.

Each check is a function of the subject that returns a paragraph for the strategy's author; empty if the check passes.
"""

import dataclasses
import io
import pickle
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from fireopd.engines import RolloutEngine
from fireopd.plans import RolloutPlan
from fireopd.prompts import PromptSource
from fireopd.teachers import Teacher
from fireopd.testing.example_batches import example_batch
from fireopd.testing.subject import VERSIONS, Subject, difference
from fireopd.types.signals import SIGNALS
from fireopd.types.strategy import Strategy
from fireopd.types.strategy_state import Stateful
from fireopd.verifiers import Verifier

__all__ = [
    "can_be_pickled",
    "can_be_written_in_yaml",
    "declares_all_signals_it_reads",
    "declares_known_signals",
    "has_no_mutable_defaults",
    "is_a_frozen_dataclass",
    "pickling_problem",
    "prints_its_settings",
    "restores_its_state",
    "yaml_problem",
]

MUTABLE = (list, dict, set, bytearray, torch.Tensor)
"""Mutable types."""


def is_a_frozen_dataclass(subject: Subject) -> str:
    """Check that the class is a frozen dataclass whose `requires` is not a setting."""
    kind: Any = type(subject.strategy)
    parameters: Any = vars(kind).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return (
            f"is not a frozen dataclass, so it has no settings in YAML or can change during a run. "
            f"Write @dataclass(frozen=True) above class {subject.name}."
        )
    if "requires" in {field.name for field in dataclasses.fields(kind)}:
        return "has 'requires' as a setting. Write it without a type annotation: requires = frozenset({...})."
    return ""


def declares_known_signals(subject: Subject) -> str:
    """Check that `requires` is a frozenset of signal names."""
    requires: Any = subject.strategy.requires
    if not isinstance(requires, frozenset):
        return f"has 'requires' as a {type(requires).__name__}. Write requires = frozenset({{...}})."
    unknown = sorted(requires - SIGNALS.keys())
    if not unknown:
        return ""
    close = get_close_matches(unknown[0], SIGNALS, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"The signals are {', '.join(SIGNALS)}."
    return f"requires {unknown[0]!r}, which is not a signal. {hint}"


def declares_all_signals_it_reads(subject: Subject) -> str:
    """Check that all signals that the strategy reads are in `requires`."""
    if not subject.undeclared:
        return ""
    names = ", ".join(repr(name) for name in sorted(subject.undeclared))
    line = ", ".join(f'"{name}"' for name in sorted(subject.declared | subject.undeclared))
    return (
        f"reads {names} without declaring it, which is an error in a run. "
        f"Write in the class: requires = frozenset({{{line}}})."
    )


def has_no_mutable_defaults(subject: Subject) -> str:
    """Check that no class attribute and no default of a setting is a mutable object, shared by all instances."""
    for kind in type(subject.strategy).__mro__:
        for name, value in vars(kind).items():
            if isinstance(value, MUTABLE) and not name.startswith("__") and name != "requires":
                return (
                    f"has the mutable default {name} = {value!r}, which all instances share. Write "
                    f"a tuple or a number, or {name}: {type(value).__name__} = field(default_factory=...)."
                )
    return ""


def can_be_pickled(subject: Subject) -> str:
    """Check that the strategy is equal to its pickled copy."""
    return pickling_problem(subject.strategy)


def pickling_problem(plugin: object) -> str:
    """Return why a plug-in is not equal to its pickled copy; empty if it is."""
    try:
        copied = pickle.loads(pickle.dumps(plugin))
    except Exception as error:  # pickle raises anything
        return (
            f"cannot be pickled ({error}), so it cannot be sent to other processes. Define the class at the top of a "
            f"module, and use plain settings: numbers, text, lists and other plug-ins."
        )
    if copied == plugin:
        return ""
    return (
        f"is not equal to itself after pickling: {plugin!r} becomes {copied!r}. Leave __eq__ to @dataclass, "
        f"and use plain settings: numbers, text, lists and other plug-ins."
    )


def prints_its_settings(subject: Subject) -> str:
    """Check that the repr, which appears in logs, shows the settings and no memory address."""
    text = repr(subject.strategy)
    if text.startswith(subject.name) and " at 0x" not in text:
        return ""
    return f"prints as {text}, which does not show its settings. Leave __repr__ to @dataclass, and use plain settings."


def can_be_written_in_yaml(subject: Subject) -> str:
    """Check that the strategy can be written in a YAML configuration, by its class name, and read back."""
    return yaml_problem(subject.strategy, subject.spec.base)


def yaml_problem(plugin: object, base: type) -> str:
    """Return why a plug-in, a dataclass, differs after it is written in YAML and read back; empty if it does not."""
    if not dataclasses.is_dataclass(plugin):
        return ""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--plugin", type=base)
    try:
        text = yaml.safe_dump({"plugin": described(plugin)}, sort_keys=False)
        parsed = parser.instantiate(parser.parse_string(text)).plugin
    except Exception as error:  # reported to the author, whatever it is
        return (
            f"cannot be written in a configuration ({' '.join(str(error).split())}). Give every setting a type and a "
            f"value that YAML supports: numbers, text, enums, lists, and plug-ins."
        )
    if parsed == plugin:
        return ""
    return (
        f"changes when it is written in a configuration and read back: {plugin!r} becomes {parsed!r}. "
        f"Give every setting the type of its value, and change no setting in __post_init__."
    )


PLUGINS = (Strategy, Teacher, RolloutEngine, RolloutPlan, PromptSource, Verifier)
"""Base classes of settings that YAML names by their class."""


def described(value: Any) -> Any:
    """Return the YAML form of a setting."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        settings = {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"class_path": type(value).__name__, "init_args": settings} if isinstance(value, PLUGINS) else settings
    if isinstance(value, list | tuple | set | frozenset):
        return [described(part) for part in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    return {key: described(part) for key, part in value.items()} if isinstance(value, dict) else value


def restores_its_state(subject: Subject) -> str:
    """Check that a stateful strategy resumes from a checkpoint with equal answers."""
    used, restored = subject.copied(), subject.copied()
    if not (isinstance(used, Stateful) and isinstance(restored, Stateful)):
        one = {"state_dict", "load_state_dict"} & set(dir(used))
        return f"has only {one.pop()}. Implement both state_dict and load_state_dict, or neither." if one else ""
    for seed in (3, 4):
        subject.answer(example_batch(seed=seed), of=used)
    file = io.BytesIO()
    torch.save(used.state_dict(), file)
    file.seek(0)
    try:
        restored.load_state_dict(torch.load(file, weights_only=True))
    except pickle.UnpicklingError as error:
        return (
            f"has a state that a checkpoint cannot store ({str(error).splitlines()[0]}). Use numbers, strings, "
            f"tensors, and dicts and lists of them."
        )
    batch = example_batch(seed=5, policy_version=VERSIONS[-1])
    changed = difference(subject.answer(batch, of=used), subject.answer(batch, of=restored), batch.response_mask)
    if not changed:
        return ""
    return (
        f"returns a different answer after a resume: {changed}. Return everything that it keeps between calls from "
        f"state_dict, and restore all of it in load_state_dict."
    )

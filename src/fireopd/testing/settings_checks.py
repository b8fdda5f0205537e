"""What a strategy must be as an object: settings that are frozen, declared, shared with nobody, and that travel.

A property is a function of the subject that returns a paragraph for the strategy's author, or an empty string.
"""

import dataclasses
import io
import pickle
from difflib import get_close_matches
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from fireopd.testing.example_batches import example_batch
from fireopd.testing.subject import VERSIONS, Subject, difference
from fireopd.types.signals import SIGNALS
from fireopd.types.strategy import Strategy
from fireopd.types.strategy_state import Stateful

MUTABLE = (list, dict, set, bytearray, torch.Tensor)
"""Types whose objects can be changed."""


def is_a_frozen_dataclass(subject: Subject) -> str:
    """Settings are fields that nobody can change."""
    kind: Any = type(subject.strategy)
    parameters: Any = vars(kind).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return (
            f"is no frozen dataclass, so that it has no settings in YAML or can be changed in mid-run. "
            f"Write @dataclass(frozen=True) above class {subject.name}."
        )
    if "requires" in {field.name for field in dataclasses.fields(kind)}:
        return (
            "has 'requires' as a setting, which anybody could change. "
            "Write it without a type: requires = frozenset({...})."
        )
    return ""


def declares_signals_that_exist(subject: Subject) -> str:
    """`requires` is a frozenset of names of signals."""
    requires: Any = subject.strategy.requires
    if not isinstance(requires, frozenset):
        return f"has 'requires' as a {type(requires).__name__}. Write requires = frozenset({{...}})."
    unknown = sorted(requires - SIGNALS.keys())
    if not unknown:
        return ""
    close = get_close_matches(unknown[0], SIGNALS, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"The signals are {', '.join(SIGNALS)}."
    return f"requires {unknown[0]!r}, which is no signal. {hint}"


def declares_what_it_reads(subject: Subject) -> str:
    """Nothing is read that is not in `requires`."""
    if not subject.undeclared:
        return ""
    names = ", ".join(repr(name) for name in sorted(subject.undeclared))
    line = ", ".join(f'"{name}"' for name in sorted(subject.declared | subject.undeclared))
    return (
        f"reads {names} without declaring it, and would be refused in a run. "
        f"Write in the class: requires = frozenset({{{line}}})."
    )


def shares_nothing_mutable(subject: Subject) -> str:
    """No class attribute, and no default of a setting, is an object that all instances would share and could change."""
    for kind in type(subject.strategy).__mro__:
        for name, value in vars(kind).items():
            if isinstance(value, MUTABLE) and not name.startswith("__") and name != "requires":
                return (
                    f"has the mutable default {name} = {value!r}, which all its instances share and can change. Write "
                    f"a tuple or a number, or {name}: {type(value).__name__} = field(default_factory=...)."
                )
    return ""


def survives_pickling(subject: Subject) -> str:
    """It goes from process to process."""
    try:
        copied = pickle.loads(pickle.dumps(subject.strategy))
    except Exception as error:  # pickle raises anything
        return (
            f"cannot be pickled ({error}), so it cannot go to other processes. Define the class at the top of a "
            f"module, and keep settings plain: numbers, text, lists and other strategies."
        )
    if copied == subject.strategy:
        return ""
    return (
        f"is not equal to itself after pickling: {subject.strategy!r} becomes {copied!r}. Leave __eq__ to @dataclass, "
        f"and keep settings plain: numbers, text, lists and other strategies."
    )


def prints_its_settings(subject: Subject) -> str:
    """Its repr, which goes to logs, tells settings and nothing of the process."""
    text = repr(subject.strategy)
    if text.startswith(subject.name) and " at 0x" not in text:
        return ""
    return f"prints as {text}, which does not tell its settings. Leave __repr__ to @dataclass, and keep settings plain."


def comes_back_from_yaml(subject: Subject) -> str:
    """It can be written in a configuration, by its bare class name."""
    if not dataclasses.is_dataclass(subject.strategy):
        return ""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--strategy", type=subject.question.of)
    try:
        text = yaml.safe_dump({"strategy": described(subject.strategy)}, sort_keys=False)
        made = parser.instantiate(parser.parse_string(text)).strategy
    except Exception as error:  # whatever stands in the way, the author is to know of it
        return (
            f"cannot be written in a configuration ({' '.join(str(error).split())}). Give every setting a type and a "
            f"value that YAML has: numbers, text, lists, and strategies."
        )
    if made == subject.strategy:
        return ""
    return (
        f"is another one after it was written in a configuration and read: {subject.strategy!r} becomes {made!r}. "
        f"Give every setting the type of its value, and change no setting in __post_init__."
    )


def described(value: Any) -> Any:
    """Return what a setting looks like in YAML."""
    if isinstance(value, Strategy) and dataclasses.is_dataclass(value):
        settings = {f.name: described(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"class_path": type(value).__name__, "init_args": settings}
    if isinstance(value, list | tuple | set | frozenset):
        return [described(part) for part in value]
    return {key: described(part) for key, part in value.items()} if isinstance(value, dict) else value


def takes_its_state_back(subject: Subject) -> str:
    """A strategy with a state goes on from a checkpoint as if nothing had happened."""
    used, restored = subject.copied(), subject.copied()
    if not (isinstance(used, Stateful) and isinstance(restored, Stateful)):
        one = {"state_dict", "load_state_dict"} & set(dir(used))
        return f"has {one.pop()} alone. Write both state_dict and load_state_dict, or neither." if one else ""
    for seed in (3, 4):
        subject.answer(example_batch(seed=seed), of=used)
    file = io.BytesIO()
    torch.save(used.state_dict(), file)
    file.seek(0)
    try:
        restored.load_state_dict(torch.load(file, weights_only=True))
    except pickle.UnpicklingError as error:
        return (
            f"has a state that a checkpoint cannot hold ({str(error).splitlines()[0]}). Keep to numbers, strings, "
            f"tensors, and dicts and lists of them."
        )
    batch = example_batch(seed=5, policy_version=VERSIONS[-1])
    changed = difference(subject.answer(batch, of=used), subject.answer(batch, of=restored), batch.response_mask)
    if not changed:
        return ""
    return (
        f"goes on differently after a checkpoint: {changed}. Put everything that it keeps between calls into "
        f"state_dict, and take all of it back in load_state_dict."
    )

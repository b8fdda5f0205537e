"""Safetensors files of scored rollouts and of training targets.

Scored rollouts (`fireopd.scored/1`), tensors [N, L] padded on the right: `tokens` int64, `response_mask` uint8,
`sampling_logprobs`, `student_logprobs`, `student_entropy`, `teacher_logprobs`, `teacher_entropy` float32; optional
`base_logprobs`, `reverse_kl`, `topk_reverse_kl`, `topk_forward_kl`, `topk_overlap`, `student_topk_mass`,
`teacher_rank`, `sources` uint8 [N, L], `rewards` [N], `group`, `staleness` int64 [N], `finished` uint8 [N]. Metadata:
`format`, `teachers` (a JSON list of N names), `policy_version`, `sampling` (JSON of temperature, top_p, top_k; default
1, 1, 0); optional `student` (its name), `vocabulary` (see `vocabulary_digest`) and `tasks` (a JSON list of N).

Training reads files that lack any of the signals: those that its strategies need are required then.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.method import Method
from fireopd.objectives.sources import check_batch_sources
from fireopd.training.tensor_files import write_tensors
from fireopd.types import Sampling, ScoredBatch
from fireopd.types.signals import JOINT, PER_TRAJECTORY, SIGNALS
from fireopd.types.targets import Targets

__all__ = [
    "REPLAYED",
    "check_method",
    "check_responses",
    "how_to_record",
    "read_scored",
    "recorded_student",
    "recorded_vocabulary",
    "vocabulary_digest",
    "write_scored",
    "write_targets",
]

FORMAT = "fireopd.scored/1"
INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32})
FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
MAX_TOKEN = 2**31 - 1
PER_ROW = frozenset({"group", "finished", "staleness"})
"""Optional tensors [N] that are no signals."""
OPTIONAL = frozenset({"base_logprobs", "rewards"}) | JOINT
REPLAYED = SIGNALS.keys() - OPTIONAL
"""Signals that every recorded batch of a run holds."""
REMEDY = "record it with the RolloutRecorder callback, or write the format described in fireopd.training.recordings"


def write_scored(path: Path, batch: ScoredBatch, student: str | None = None, vocabulary: str | None = None) -> None:
    """Write a scored batch, and the name of the student and the digest of its vocabulary if given."""
    tensors = {"tokens": batch.tokens, "response_mask": batch.response_mask.to(torch.uint8)}
    tensors |= {"group": batch.groups, "finished": batch.finished.to(torch.uint8)}
    tensors |= {name: v for name in ("staleness", "sources") if (v := getattr(batch, name)) is not None}
    tensors |= {name: value.float() for name, value in batch.signals.items()}
    metadata = {"teachers": json.dumps(batch.teachers), "policy_version": str(batch.policy_version)}
    metadata["sampling"] = json.dumps(asdict(batch.sampling))
    metadata |= {"student": student} if student else {}
    metadata |= {"vocabulary": vocabulary} if vocabulary else {}
    metadata |= {"tasks": json.dumps(batch.tasks)} if batch.tasks else {}
    write_tensors(path, tensors, {"format": FORMAT, **metadata})


def write_targets(path: Path, targets: Targets) -> None:
    """Write training targets: `keep` uint8 [N], `mask` uint8 [N, L], `weight` and `advantage` float32 [N, L].

    A direct objective adds `coefficient` float32 [N, L].
    """
    tensors = {"weight": targets.weight.float(), "advantage": targets.advantage.float()}
    tensors |= {"keep": targets.keep.to(torch.uint8), "mask": targets.mask.to(torch.uint8)}
    if targets.coefficient is not None:
        tensors["coefficient"] = targets.coefficient.float()
    write_tensors(path, tensors, {"format": "fireopd.targets/1"})


def read_scored(path: Path, required_signals: Collection[str] = REPLAYED) -> ScoredBatch:
    """Read a scored batch; values outside the response mask are ignored.

    Args:
        path: file to read.
        required_signals: signals that the file must hold.

    Raises:
        UserError: if the file cannot be read, has another format, or a tensor is missing or invalid.
    """
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise _error(path, f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
    required = {"tokens", "response_mask", *required_signals}
    missing = sorted(required - tensors.keys())
    if missing:
        raise _error(path, f"the tensor {missing[0]!r} is missing")
    shape = tuple(tensors["tokens"].shape)
    if len(shape) != 2 or 0 in shape:
        raise _error(path, f"'tokens' has the shape {list(shape)}, expected [N, L] with at least one element")
    for name in required | (tensors.keys() & (SIGNALS.keys() | PER_ROW | {"sources"})):
        expected = shape[:1] if name in PER_TRAJECTORY | PER_ROW else shape
        if tuple(tensors[name].shape) != expected:
            raise _error(path, f"{name!r} has the shape {list(tensors[name].shape)}, expected {list(expected)}")
    mask = _flags(path, "response_mask", tensors["response_mask"])
    return ScoredBatch(
        tokens=_integers(path, "tokens", tensors["tokens"], 0, MAX_TOKEN),
        response_mask=mask,
        groups=_integers(path, "group", tensors.get("group", torch.arange(shape[0]))),
        finished=_flags(path, "finished", tensors.get("finished", torch.ones(shape[0], dtype=torch.bool))),
        teachers=_names(path, metadata, "teachers", shape[0]),
        tasks=_names(path, metadata, "tasks", shape[0]) if "tasks" in metadata else (),
        signals={name: _signal(path, name, tensors[name], mask) for name in SIGNALS if name in tensors},
        sampling=_sampling(path, metadata),
        policy_version=_version(path, metadata),
        staleness=_integers(path, "staleness", tensors["staleness"]) if "staleness" in tensors else None,
        sources=_integers(path, "sources", tensors["sources"], 0, 3).byte() if "sources" in tensors else None,
    )


def how_to_record(signal: str) -> str:
    """Return the remedy for recordings without a signal."""
    return f"record rollouts with it (fireopd fit with RolloutRecorder and --model.extra_signals '[{signal}]')"


def recorded_student(path: Path) -> str | None:
    """Return the name of the student that sampled the rollouts of a file; None if the file has no name.

    Raises:
        UserError: if the file cannot be read.
    """
    return _metadata(path).get("student")


def recorded_vocabulary(path: Path) -> str | None:
    """Return the digest of the vocabulary of the tokens of a file; None if the file has none.

    Raises:
        UserError: if the file cannot be read.
    """
    return _metadata(path).get("vocabulary")


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of the tokens of a tokenizer with their ids, the same on all machines."""
    tokens = sorted(tokenizer.get_vocab().items())
    return hashlib.blake2b(json.dumps(tokens).encode(), digest_size=16).hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error


def check_responses(path: Path, batch: ScoredBatch) -> None:
    """Check that recorded rollouts have a response token.

    Raises:
        UserError: if all responses are empty.
    """
    if not batch.response_mask.any():
        raise UserError("FILE", str(path), "it holds no response token", "record rollouts of a student")


def check_method(path: Path, batch: ScoredBatch, method: Method, name: str | None = None) -> None:
    """Check that a method can be applied to recorded rollouts.

    Args:
        path: file of the rollouts.
        batch: content of the file.
        method: method to apply.
        name: name of the method under `--methods`; None if it is given by options of the command.

    Raises:
        UserError: if the file lacks a required signal, if the objective is wrong at tokens that the student did not
            sample, or if the method uses importance weights and the responses were sampled from a truncated
            distribution, for which they are undefined.
    """
    check_batch_sources(method.objective, batch, str(path))
    missing = sorted(method.requires - batch.signals.keys())
    if missing and name is None:
        problem, remedy = f"a strategy requires {missing[0]!r}", f"{how_to_record(missing[0])}, or choose another"
        raise UserError("FILE", str(path), problem, remedy)
    if missing:
        problem = f"its strategies require {missing[0]!r}, which {path} does not hold"
        raise UserError("--methods", name, problem, f"{how_to_record(missing[0])}, or leave the method out")
    cap = method.importance_cap
    if not batch.sampling.truncated or cap is None:
        return
    sampled = f"were sampled from a truncated distribution ({batch.sampling})"
    if name is None:
        raise UserError("--importance_cap", cap, f"the responses {sampled}", "disable it: --importance_cap null")
    problem = f"importance_cap is {cap}, but the responses of {path} {sampled}"
    raise UserError("--methods", name, problem, "set model.importance_cap to null")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise _unreadable(path, error) from error  # the last four: dtypes that torch or safetensors do not know


def _names(path: Path, metadata: dict[str, str], key: str, rows: int) -> tuple[str, ...]:
    names = _json(metadata.get(key, "null"))
    if not (isinstance(names, list) and len(names) == rows and all(_is_text(name) for name in names)):
        raise _error(path, f"the metadata {key!r} is not a JSON list of {rows} names")
    return tuple(names)


def _sampling(path: Path, metadata: dict[str, str]) -> Sampling:
    values = _json(metadata.get("sampling", "{}"))
    known = asdict(Sampling())
    if isinstance(values, dict) and values.keys() <= known.keys():
        found = known | values
        numbers = all(type(value) in (int, float) for value in found.values()) and type(found["top_k"]) is int
        if numbers and 0 <= found["temperature"] < 2**31 and 0 < found["top_p"] <= 1 and 0 <= found["top_k"] < 2**31:
            return Sampling(**found)
    problem = f"the metadata 'sampling' is not JSON of temperature, top_p and top_k ({_shown(metadata['sampling'])})"
    raise _error(path, problem)


def _version(path: Path, metadata: dict[str, str]) -> int:
    text = metadata.get("policy_version", "0")
    if re.fullmatch("-?[0-9]{1,18}", text) is None:
        raise _error(path, f"the metadata 'policy_version' is {_shown(text)}, not an integer")
    return int(text)


def _json(text: str) -> Any:
    """Return a JSON value, None if there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_text(value: Any) -> bool:
    """Return whether a value is a string without unpaired surrogates, which no file can hold."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _integers(path: Path, name: str, values: Tensor, least: int | None = None, most: int | None = None) -> Tensor:
    if values.dtype not in INTEGERS:
        raise _error(path, f"{name!r} holds {values.dtype}, expected int64")
    values = values.long()
    for wrong in (values < least if least is not None else None, values > most if most is not None else None):
        if wrong is not None and wrong.any():
            place = wrong.nonzero()[0].tolist()
            raise _error(path, f"{name!r} is {values[tuple(place)].item()} at {place}, expected {least} to {most}")
    return values


def _flags(path: Path, name: str, values: Tensor) -> Tensor:
    return (values if values.dtype == torch.bool else _integers(path, name, values, 0, 1)).bool()


def _signal(path: Path, name: str, values: Tensor, mask: Tensor) -> Tensor:
    if values.dtype not in FLOATS:
        raise _error(path, f"{name!r} holds {values.dtype}, expected float32")
    clean = values.float() if name in PER_TRAJECTORY else torch.where(mask, values.float(), 0.0)
    if clean.isnan().any():
        raise _error(path, f"{name!r} is NaN at {clean.isnan().nonzero()[0].tolist()}")
    return clean


def _unreadable(path: Path, error: Exception) -> UserError:
    return _error(path, f"cannot be read as safetensors ({_shown(str(error))})")


def _shown(text: str) -> str:
    """Return at most 200 characters of a text, without control characters and surrogates."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:200])


def _error(path: Path, problem: str) -> UserError:
    return UserError("FILE", str(path), problem, REMEDY)

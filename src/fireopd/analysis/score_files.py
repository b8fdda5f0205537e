"""Scores of teachers for responses in files: recorded rollouts, or texts in JSONL files.

The rows of a file are scored in parts of fixed size, each of which is written before the next begins. A stopped command
continues with the first part that is missing, and the result is the same, byte for byte.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.atomic_files import remove, replacing, writing
from fireopd.engines.rollout import collate
from fireopd.errors import UserError
from fireopd.prompts.jsonl import JSONLPrompts, read_jsonl
from fireopd.prompts.tokenization import tokenize
from fireopd.teachers import Teacher, score_by_teachers
from fireopd.training.recorded_rollouts import RecordedFile, Recording, check_recorded_rows, check_recorded_vocabulary
from fireopd.training.recordings import read_scored, vocabulary_digest, write_scored
from fireopd.types import Prompt, Response, RolloutBatch, Sampling, ScoredBatch
from fireopd.types.signals import JOINT

__all__ = ["ResponseFile", "Student", "check_teachers", "file_digest", "read_responses"]

KEY = "FILE"
"""Argument that names the files, for error messages."""
Watch = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Student:
    """Model whose tokens the teachers score."""

    name: str
    """Model folder, hub name, or embedded model."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    template_options: dict[str, Any]
    """Further arguments of its chat template."""


@dataclass(frozen=True)
class ResponseFile:
    """Responses of one file."""

    path: Path
    """Path of the file."""
    rollouts: RolloutBatch
    """Prompts and responses."""
    signals: Mapping[str, Tensor]
    """Signals that the file holds, apart from those of teachers."""

    def score(
        self,
        teachers: Mapping[str, Teacher],
        out: Path,
        student: Student,
        rows: int,
        device: torch.device,
        watch: Watch,
    ) -> None:
        """Write the responses with the scores of their teachers.

        Args:
            teachers: teachers by the names that the rows use, after `setup`.
            out: file to write; parts are kept in a folder next to it until it is complete.
            student: model whose tokens are scored.
            rows: responses of a part.
            device: device of the teachers.
            watch: timer, see `score_by_teachers`.

        Raises:
            UserError: if a file cannot be written, or a teacher returns values that are not finite.
        """
        parts = out.with_name(f".{out.name}.parts")
        number = len(self.rollouts.prompts)
        with writing("--out", out):
            parts.mkdir(parents=True, exist_ok=True)
            for start in range(0, number, rows):
                file = parts / f"{start:09d}.safetensors"
                if not file.exists():
                    part = self.rollouts.select(torch.arange(start, min(start + rows, number)))
                    scores = self._scores(teachers, part.to(device), watch)
                    with replacing(file) as unfinished:
                        save_file(scores, unfinished)
            found = [load_file(parts / f"{start:09d}.safetensors") for start in range(0, number, rows)]
            width = self.rollouts.tokens.shape[1]
            scored = {name: _stacked([part[name] for part in found], width) for name in found[0]}
            batch = ScoredBatch.of(self.rollouts, {**self.signals, **scored})
            write_scored(out, batch, student.name, vocabulary_digest(student.tokenizer))
            remove(parts)

    def _scores(self, teachers: Mapping[str, Teacher], part: RolloutBatch, watch: Watch) -> dict[str, Tensor]:
        scores, _ = score_by_teachers(teachers, part, watch, entropy=True, distributions=False)
        found = {name: value.float().cpu().contiguous() for name, value in scores.named("teacher").items()}
        for name, values in found.items():
            if values.isnan().any():
                row = int(values.isnan().any(-1).int().argmax())
                problem = f"its {name} is NaN for {part.prompts[row].id} of {self.path}"
                raise UserError("--teachers", part.teachers[row], problem, "check its weights and its dtype")
        return found


def read_responses(path: Path, student: Student, default_teacher: str | None) -> ResponseFile:
    """Return the responses of a file of scored rollouts (`.safetensors`), or of a JSONL file.

    A line of a JSONL file is a prompt as in `JSONLPrompts` with its "response", a text, and optionally `"finished":
    false` for a response without an end; others get the student's end-of-sequence token.

    Args:
        path: path of the file.
        student: model whose tokens are scored.
        default_teacher: teacher of lines that name none; None if they must.

    Raises:
        UserError: if the file cannot be read, a row is invalid, or its tokens are not those of the student.
    """
    if path.suffix == ".safetensors":
        return _recorded(path, student)
    try:
        texts = JSONLPrompts(train=path, teacher=default_teacher).training(0)
    except UserError as error:
        remedy = (
            "name its teacher in the row, or give one teacher" if "names no teacher" in error.problem else error.remedy
        )
        raise UserError(KEY, error.value, error.problem, remedy) from error
    lines = read_jsonl(path, KEY).rows
    prompts = tokenize(texts, student.tokenizer, student.template_options, KEY)
    responses = [_response(place, line, student.tokenizer) for place, line in lines]
    numbers: dict[tuple[object, ...], int] = {}
    groups = [numbers.setdefault((prompt.tokens, prompt.teacher), len(numbers)) for prompt in prompts]
    rollouts = collate(prompts, responses, groups, Sampling(), policy_version=0)
    check_recorded_rows(KEY, path, ScoredBatch.of(rollouts, {}), student.name)
    return ResponseFile(path, rollouts, {})


def _response(place: str, line: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Response:
    text, finished = line.get("response"), line.get("finished", True)
    if not (isinstance(text, str) and text):
        raise UserError(KEY, place, 'the row has no text "response"', 'add "response" to the row')
    if not isinstance(finished, bool):
        raise UserError(KEY, place, f'"finished" is {finished!r}', "write true or false")
    tokens: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = (*tokens, tokenizer.eos_token_id) if finished else tuple(tokens)
    if not tokens:
        raise UserError(KEY, place, "the response has no tokens", "give it a text, or remove the row")
    return Response(tokens, (0.0,) * len(tokens), finished)


def _recorded(path: Path, student: Student) -> ResponseFile:
    batch = read_scored(path, required_signals=())
    check_recorded_vocabulary(KEY, path, student.name, student.tokenizer)
    check_recorded_rows(KEY, path, batch, student.name)
    recording = Recording((RecordedFile(path, batch),))
    prompts: dict[int, Prompt] = {}
    for place, (_, rows) in enumerate(recording.groups):
        prompts |= dict.fromkeys(rows, recording.prompts[place])
    like = torch.zeros(batch.tokens.shape)
    rollouts = RolloutBatch(
        tokens=batch.tokens,
        attention_mask=torch.arange(batch.tokens.shape[1]) < batch.spans[:, None],
        response_mask=batch.response_mask,
        sampling_logprobs=batch.signals.get("sampling_logprobs", like),
        groups=batch.groups,
        finished=batch.finished,
        prompts=tuple(replace(prompts[row], teacher=name) for row, name in enumerate(batch.teachers)),
        sampling=batch.sampling,
        policy_version=batch.policy_version,
    )
    kept = {name: v for name, v in batch.signals.items() if name not in JOINT and not name.startswith("teacher")}
    return ResponseFile(path, rollouts, kept)


def check_teachers(key: str, teachers: Mapping[str, Teacher], files: Sequence[ResponseFile], student: str) -> None:
    """Check that the teachers can score all responses. Loads no weights.

    Args:
        key: option that holds the teachers.
        teachers: teachers by name.
        files: files of responses.
        student: name of the model whose tokens are scored.

    Raises:
        UserError: if a row names an unknown teacher, or a teacher refuses the student or a prompt, or is the student of
            a run.
    """
    rows = [(file, prompt) for file in files for prompt in file.rollouts.prompts]
    for file, prompt in rows:
        if prompt.teacher not in teachers:
            problem = f"{prompt.id} of {file.path} names this teacher; the teachers are {', '.join(teachers)}"
            raise UserError(key, prompt.teacher, problem, "add it, or fix the file")
    longest = max(int(file.rollouts.response_mask.sum(-1).max()) for file in files)
    for name, teacher in teachers.items():
        own = [prompt for _, prompt in rows if prompt.teacher == name]
        for place, model in teacher.models(f"{key}.{name}"):
            if model.reads_student(student, "", adapter=False):
                problem = "it reads the student of a run, and no student is trained here"
                raise UserError(place, type(model).__name__, problem, "use an HFTeacher with the path of the student")
        teacher.check(f"{key}.{name}", student, own, longest)
        teacher.check_entropy(f"{key}.{name}", student)


def file_digest(path: Path) -> str:
    """Return a digest of the content of a file.

    Raises:
        UserError: if it cannot be read.
    """
    digest = blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            for block in iter(partial(file.read, 2**20), b""):
                digest.update(block)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise UserError(KEY, str(path), problem, "give a file of scored rollouts or a JSONL file") from error
    return digest.hexdigest()


def _stacked(parts: Sequence[Tensor], width: int) -> Tensor:
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])

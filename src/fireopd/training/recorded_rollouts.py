"""Recorded rollouts as the source of training: responses with the scores of their teachers, from files.

No teacher is loaded, and no engine without validation prompts. The recorded log-probabilities of the sampler give the
importance weights of the student that is trained now. All files are held in host memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from fireopd.errors import UserError
from fireopd.models.loading import context_length, load_tokenizer, vocabulary_size
from fireopd.training.recordings import read_scored, recorded_student, recorded_vocabulary, vocabulary_digest
from fireopd.types import Prompt, RolloutBatch, Sampling, ScoredBatch, Source
from fireopd.types.rollouts import RecordedSignals
from fireopd.types.signals import JOINT, OF_STUDENT

__all__ = ["KEY", "RecordedFile", "RecordedRollouts", "Recording", "check_recorded_rows", "check_recorded_vocabulary"]

KEY = "data.rollouts.files"
"""Setting of a run that names the files."""


@dataclass(frozen=True)
class RecordedRollouts:
    """Files of scored rollouts, as written by the `RolloutRecorder` callback or by `fireopd score`."""

    files: list[Path]
    """Files, or folders whose `.safetensors` files are read in the order of their names."""

    def __post_init__(self) -> None:
        """Check that a file is named."""
        if not self.files:
            raise ValueError("files must name at least one file or folder, got []")

    @property
    def paths(self) -> list[Path]:
        """All files.

        Raises:
            UserError: if a folder holds no file.
        """
        found = []
        for place in self.files:
            inside = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
            if not inside:
                problem = "the folder holds no .safetensors file"
                raise UserError(KEY, str(place), problem, "give the folder of a recording, such as version_0/rollouts")
            found += inside
        return found

    def load(self, student: str, tokenizer: PreTrainedTokenizerBase) -> "Recording":
        """Read all files.

        Args:
            student: name of the model that is trained.
            tokenizer: its tokenizer.

        Raises:
            UserError: if a file cannot be read or holds invalid values, if its rollouts are of another vocabulary or do
                not fit into the context of the student, or if the files were sampled with different settings.
        """
        files = tuple(RecordedFile(path, _read(path)) for path in self.paths)
        for file in files:
            check_recorded_vocabulary(KEY, file.path, student, tokenizer)
            check_recorded_rows(KEY, file.path, file.batch, student)
        first = files[0]
        for file in files:
            if file.batch.sampling != first.batch.sampling:
                problem = f"it was sampled with {file.batch.sampling}, and {first.path} with {first.batch.sampling}"
                raise UserError(KEY, str(file.path), problem, "train on files of the same sampling settings")
        return Recording(files)


@dataclass(frozen=True)
class RecordedFile:
    """Content of one file."""

    path: Path
    """Path of the file."""
    batch: ScoredBatch
    """Scored rollouts."""


@dataclass(frozen=True)
class Recording:
    """All recorded rollouts of a run; a group holds the responses to one prompt of one file."""

    files: tuple[RecordedFile, ...]
    """Files in their order."""

    @cached_property
    def groups(self) -> list[tuple[int, list[int]]]:
        """File number and rows of each group, in recorded order."""
        found = []
        for number, file in enumerate(self.files):
            rows: dict[int, list[int]] = {}
            for row, group in enumerate(file.batch.groups.tolist()):
                rows.setdefault(group, []).append(row)
            found += [(number, own) for own in rows.values()]
        return found

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Prompt of each group; the recording holds its tokens, and not its text."""
        found = []
        for place, (number, rows) in enumerate(self.groups):
            batch = self.files[number].batch
            tokens = batch.tokens[rows[0], : _start(batch.authors[rows[0]] != Source.PROMPT)].tolist()
            task = batch.tasks[rows[0]] if batch.tasks else batch.teachers[rows[0]]
            name = f"{self.files[number].path.name}:{rows[0]}"
            found.append(Prompt(tuple(tokens), batch.teachers[rows[0]], task, None, name, str(place)))
        return found

    @property
    def signals(self) -> frozenset[str]:
        """Signals that all files hold and that training can use: those of student and teacher together are stale."""
        held = frozenset.intersection(*(frozenset(file.batch.signals) for file in self.files))
        return held - OF_STUDENT - JOINT

    @property
    def sampling(self) -> Sampling:
        """Sampling settings of the responses."""
        return self.files[0].batch.sampling

    @property
    def responses_per_prompt(self) -> int:
        """Number of responses of the largest group."""
        return max(len(rows) for _, rows in self.groups)

    @property
    def longest_trajectory(self) -> int:
        """Number of tokens of the longest trajectory."""
        return max(int(file.batch.spans.max()) for file in self.files)

    @property
    def trajectories(self) -> int:
        """Number of trajectories."""
        return sum(len(file.batch.teachers) for file in self.files)

    @property
    def versions(self) -> list[int]:
        """Policy versions of the students that sampled the files, ascending."""
        return sorted({file.batch.policy_version for file in self.files})

    @property
    def mixed(self) -> bool:
        """True if another author than the student wrote tokens of a file."""
        return any(file.batch.sources is not None for file in self.files)

    def __str__(self) -> str:
        """Return sizes and versions."""
        versions = self.versions
        shown = f"version {versions[0]}" if len(versions) == 1 else f"versions {versions[0]} to {versions[-1]}"
        sizes = f"{self.trajectories} trajectories of {len(self.groups)} prompts in {len(self.files)} files"
        return f"{sizes}, sampled by {shown} of the recorded student"

    def rollouts(self, groups: Sequence[int], number: int) -> RolloutBatch:
        """Return the trajectories of some groups as a batch.

        Args:
            groups: places of the groups, ascending.
            number: number of the batch in the run.
        """
        by_file = {file: [self.groups[place][1] for place in own] for file, own in self._by_file(groups).items()}
        parts = [self.files[file].batch.select(list(chain.from_iterable(rows))) for file, rows in by_file.items()]
        parts = parts or [self.files[0].batch.select([])]
        width = max(int(part.spans.max()) if len(part.teachers) else 1 for part in parts)
        tokens, mask = (_joined([getattr(part, name) for part in parts], width) for name in ("tokens", "response_mask"))
        values = {name: _joined([part.signals[name] for part in parts], width) for name in sorted(self.signals)}
        places = [place for place in groups for _ in self.groups[place][1]]
        spans = torch.cat([part.spans for part in parts])
        versions = torch.cat([torch.full_like(part.groups, part.policy_version) for part in parts])
        return RolloutBatch(
            tokens=tokens,
            attention_mask=torch.arange(width) < spans[:, None],
            response_mask=mask,
            sampling_logprobs=values.get("sampling_logprobs", torch.zeros(tokens.shape)),
            groups=torch.tensor(places, dtype=torch.int64),
            finished=torch.cat([part.finished for part in parts]),
            prompts=tuple(self.prompts[place] for place in places),
            sampling=self.sampling,
            policy_version=0,
            rewards=values.get("rewards"),
            sources=_joined([part.authors for part in parts], width) if self.mixed else None,
            recorded=RecordedSignals(values, versions),
            number=number,
        )

    def _by_file(self, groups: Sequence[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for place in groups:
            found.setdefault(self.groups[place][0], []).append(place)
        return found


def _joined(parts: Sequence[Tensor], width: int) -> Tensor:
    """Return the rows of all parts, [B, width] or [B]; 0 beyond the tokens of a part."""
    return torch.cat([part if part.ndim == 1 else pad(part, (0, width - part.shape[1])) for part in parts])


def _read(path: Path) -> ScoredBatch:
    try:
        return read_scored(path, required_signals=("teacher_logprobs",))
    except UserError as error:
        remedy = error.remedy
        if "'teacher_logprobs' is missing" in error.problem:
            remedy = "add the scores of a teacher with fireopd score"
        raise UserError(KEY, error.value, error.problem, remedy) from error


def _start(mask: Tensor) -> int:
    """Return the place of the first response token of bool [L]."""
    return int(mask.int().argmax())


def check_recorded_vocabulary(key: str, path: Path, student: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `UserError` if the tokens of a file are not those of the student.

    Args:
        key: setting that names the file.
        path: path of the file.
        student: name of the student.
        tokenizer: its tokenizer.
    """
    digest, name = recorded_vocabulary(path), recorded_student(path)
    if digest is None and name is not None and name != student:
        try:
            digest = vocabulary_digest(load_tokenizer(name, key))
        except UserError:
            digest = "unknown"
    if digest is not None and digest != vocabulary_digest(tokenizer):
        problem = f"its tokens are those of another student ({name or 'not named'}), with another vocabulary"
        raise UserError(key, str(path), problem, "record rollouts of this student, or score texts with fireopd score")


def check_recorded_rows(key: str, path: Path, batch: ScoredBatch, student: str) -> None:
    """Raise `UserError` if a row has no prompt or response token, or tokens that the student cannot read.

    Args:
        key: setting that names the file.
        path: path of the file.
        batch: its content.
        student: name of the student.
    """
    size, limit = vocabulary_size(student, "model.student"), context_length(student, "model.student")
    empty = ~batch.response_mask.any(-1) | batch.response_mask[:, 0]
    wrong = {
        "has no prompt token, or no response token": empty,
        f"has a token id beyond the student's vocabulary of {size}": (batch.tokens >= size).any(-1),
        f"has more tokens than the student's context of {limit}": batch.spans > (limit or batch.tokens.shape[1]),
    }
    for problem, rows in wrong.items():
        if rows.any():
            row = int(rows.int().argmax())
            raise UserError(key, str(path), f"trajectory {row} {problem}", "remove it, or give those of this student")

"""Checkpoints with a seeded fault each: flipped bits, cuts, zeroed blocks, missing keys and values of other types."""

import copy
import random
import shutil

import torch
from helpers.paths import GOLDEN

from fireopd.training import checkpoint_files, checkpoint_writer
from fireopd.training.checkpoint_integrity import DIGEST, digest, file_digests

OLD = GOLDEN / "checkpoints_5b6120e"
FAULTS = ("flip", "cut", "zero", "missing", "type", "swap")
VALUES = (None, "text", -1, [], {}, torch.zeros(2), 1e9, True)


def intact(folder, kind):
    """Write a checkpoint of today's format, `plain` or `sharded`, and return its path."""
    path = folder / f"{kind}.ckpt"
    if kind == "plain":
        saved = torch.load(OLD / "plain.ckpt", weights_only=True)
        saved["fireopd"] |= {"settings": {"data": {"batch_size": 4}}, "validation": "none"}
        saved[DIGEST] = digest(saved)
        torch.save(saved, path)
    else:
        shutil.copytree(OLD / "sharded.ckpt", path)
        checkpoint_writer.seal(path, file_digests(path.glob("__*")))
    return path


def corrupt(source, path, rng):
    """Copy a checkpoint, and corrupt the copy. Return what was done."""
    checkpoint_files.remove(path)
    if source.is_dir():
        shutil.copytree(source, path)
        file = rng.choice(sorted(path.iterdir()))
    else:
        file = shutil.copyfile(source, path)
    fault = rng.choice(FAULTS)
    if fault in ("missing", "type", "swap"):
        meta = path / "meta.pt" if path.is_dir() else path
        saved = torch.load(meta, weights_only=True)
        _change(saved, fault, rng)
        torch.save(saved, meta)
        return fault
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    if fault == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif fault == "cut":
        del content[place:]
    else:
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    file.write_bytes(content)
    return f"{fault} {file.name} {place}"


def _change(saved, fault, rng):
    """Change one entry at a random depth."""
    place, keys = saved, [key for key in saved if key != DIGEST]
    while True:
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, dict) and inner and rng.random() < 0.8:
            place, keys = inner, list(inner)
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict) and rng.random() < 0.8:
            place, keys = inner[0], list(inner[0])
        else:
            break
    if fault == "missing":
        del place[key]
    elif fault == "type":
        place[key] = rng.choice(VALUES)
    else:
        place[key] = copy.deepcopy(saved["fireopd"])


def content(path):
    """Return all that a run reads of a checkpoint, tensors as bytes."""
    name, tensors = checkpoint_files.read_student(path)
    saved = torch.load(path / "meta.pt" if path.is_dir() else path, weights_only=True)
    files = {file.name: file.read_bytes() for file in path.glob("__*")} if path.is_dir() else {}
    return name, _bytes(tensors), _bytes(saved), files


def _bytes(value):
    if isinstance(value, dict):
        return {key: _bytes(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_bytes(own) for own in value]
    return value.contiguous().view(-1).view(torch.uint8).tolist() if isinstance(value, torch.Tensor) else repr(value)


def fuzz(folder, kind, seeds):
    """Yield fault and outcome of each seed: refused, unchanged (a bit without meaning), or changed silently."""
    source = intact(folder, kind)
    expected = content(source)
    for seed in seeds:
        rng = random.Random(seed)
        path = folder / "corrupt.ckpt"
        fault = corrupt(source, path, rng)
        try:
            checkpoint_files.check(path, sharded=True)
            found = content(path)
        except checkpoint_files.UserError:
            yield fault, "refused"
        else:
            yield fault, "unchanged" if found == expected else "changed"

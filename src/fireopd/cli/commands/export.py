"""`fireopd export CKPT OUT`: export the student of a checkpoint as a Hugging Face model folder.

The folder contains config, safetensors, tokenizer, chat template and generation config, and can be loaded by
transformers, vLLM and lm-eval. The checkpoint is a file, or the folder of a sharded run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from fireopd.atomic_files import replacing, writing
from fireopd.errors import UserError
from fireopd.models.loading import load_config, load_tokenizer, resolve
from fireopd.training.checkpoint_files import read_student

__all__ = ["export", "run"]


def run(arguments: Sequence[str]) -> None:
    """Export a checkpoint."""
    parser = argparse.ArgumentParser("fireopd export", description=__doc__)
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help="checkpoint, for example <run>/checkpoints/last.ckpt"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    options = parser.parse_args(list(arguments))
    if options.out.exists() and not options.force:
        raise UserError("OUT", str(options.out), "it already exists", "use another folder, or --force to replace it")
    name, tensors = read_student(options.checkpoint)
    export(name, tensors, options.out)
    print(f"Exported {name} from {options.checkpoint} to {options.out}")


def export(name: str, tensors: dict[str, Tensor], out: Path) -> None:
    """Write a model folder atomically.

    Args:
        name: initial model of the student, which provides config, tokenizer and generation config.
        tensors: state dict of the student.
        out: folder to write.

    Raises:
        UserError: if the tensors do not match the model, or the folder cannot be written.
    """
    model = AutoModelForCausalLM.from_config(load_config(name, "student"))
    model = model.to(next(iter(tensors.values())).dtype)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        problem = f"the checkpoint does not match it ({str(error).splitlines()[0]})"
        raise UserError("student", name, problem, "restore the model that the run was started with") from error
    try:
        model.generation_config = GenerationConfig.from_pretrained(resolve(name, "student"))
    except OSError:
        model.generation_config = GenerationConfig.from_model_config(model.config)
    tokenizer = load_tokenizer(name, "student")
    with writing("OUT", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)

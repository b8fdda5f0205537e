"""`fireopd export CKPT OUT`: write the student of a checkpoint as a Hugging Face folder.

The folder holds config, safetensors, tokenizer, chat template and generation config: transformers, vLLM and lm-eval
read it. The checkpoint may be a file, or the folder of a sharded run.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from fireopd.errors import UserError
from fireopd.models.loading import load_config, load_tokenizer, resolve
from fireopd.training.checkpoints import read_student


def run(arguments: Sequence[str]) -> None:
    """Export a checkpoint."""
    parser = argparse.ArgumentParser("fireopd export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="as in <run>/checkpoints/last.ckpt")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--force", action="store_true", help="replace OUT")
    options = parser.parse_args(list(arguments))
    if options.out.exists() and not options.force:
        raise UserError("OUT", str(options.out), "already there", "give another folder, or --force to replace it")
    name, tensors = read_student(options.checkpoint)
    export(name, tensors, options.out)
    print(f"{name}, as it is in {options.checkpoint}, is in {options.out}")


def export(name: str, tensors: dict[str, Tensor], out: Path) -> None:
    """Write a model that began as `name` with other tensors; OUT is complete, or as it was.

    Raises:
        UserError: if the tensors are not those of that model.
    """
    model = AutoModelForCausalLM.from_config(load_config(name, "student"))
    model = model.to(next(iter(tensors.values())).dtype)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        problem = f"the checkpoint does not fit it ({str(error).splitlines()[0]})"
        raise UserError("student", name, problem, "bring back the model that the run was started with") from error
    try:
        model.generation_config = GenerationConfig.from_pretrained(resolve(name, "student"))
    except OSError:
        model.generation_config = GenerationConfig.from_model_config(model.config)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch, "made")
        model.save_pretrained(made)
        load_tokenizer(name, "student").save_pretrained(made)
        if out.exists():
            shutil.move(out, Path(scratch, "replaced"))
        made.rename(out)

"""`fireopd export CKPT OUT`: export the student of a checkpoint as a Hugging Face model folder.

The folder contains config, safetensors, tokenizer, chat template and generation config, and can be loaded by
transformers, vLLM and lm-eval. The checkpoint is a file, or the folder of a sharded run. An adapter is merged into its
base model; with `--adapter`, it is written by itself, as a folder that PEFT and vLLM load. The model card, `README.md`,
states method, teachers, data and results. `--push USER/NAME` uploads the folder to the Hugging Face Hub.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.modeling_utils import PreTrainedModel

from fireopd.analysis.hub_repository import check_repository, push
from fireopd.analysis.model_card import model_card
from fireopd.atomic_files import replacing, write_text, writing
from fireopd.cli.command_parser import CommandParser
from fireopd.errors import UserError
from fireopd.models.fingerprint import fingerprint
from fireopd.models.loading import load_causal_lm, load_config, load_tokenizer, resolve
from fireopd.training.adapter_record import AdapterRecord
from fireopd.training.checkpoint_files import read_run, read_student, standing
from fireopd.training.checkpoint_integrity import RUN

__all__ = ["export", "export_adapter", "run"]

CARD = "README.md"
"""File of the model card."""


def run(arguments: Sequence[str]) -> None:
    """Export a checkpoint."""
    parser = CommandParser("export", __doc__)
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help="checkpoint, for example <run>/checkpoints/last.ckpt"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--adapter", action="store_true", help="write the adapter of a LoRA run, not a whole model")
    parser.add_argument("--push", metavar="USER/NAME", help="repository on the Hugging Face Hub to upload OUT to")
    parser.add_argument("--private", action="store_true", help="create the repository of --push as private")
    options = parser.parse_args(list(arguments))
    if options.private and options.push is None:
        raise UserError("--private", "true", "it has no effect without --push", "add --push USER/NAME, or omit it")
    if options.push is not None:
        check_repository(options.push)
    if options.out.exists() and not options.force:
        raise UserError("OUT", str(options.out), "it already exists", "use another folder, or --force to replace it")
    name, tensors = read_student(options.checkpoint)
    saved = read_run(standing(options.checkpoint))[RUN]
    adapter = AdapterRecord.read(saved)
    folder = options.checkpoint.resolve().parent.parent  # <run>/checkpoints/<checkpoint>
    card = model_card(options.push or options.out.name, name, saved, folder, adapter=options.adapter)
    if not options.adapter:
        export(name, tensors, options.out, card, adapter)
    elif adapter is not None:
        export_adapter(name, tensors, options.out, card, adapter)
    else:
        problem = "its run trained all parameters of the student, without an adapter"
        raise UserError("CKPT", str(options.checkpoint), problem, "omit --adapter")
    content = f"adapter of {name}" if options.adapter else name
    print(f"Exported {content} from {options.checkpoint} to {options.out}")
    if options.push is not None:
        print(f"Pushed to {push(options.out, options.push, private=options.private)}")


def export(name: str, tensors: dict[str, Tensor], out: Path, card: str, adapter: AdapterRecord | None = None) -> None:
    """Write a model folder atomically.

    Args:
        name: initial model of the student, which provides config, tokenizer and generation config.
        tensors: state dict of the student, or of its adapter.
        out: folder to write.
        card: model card.
        adapter: adapter of the checkpoint, which is merged into the initial model in float32.

    Raises:
        UserError: if the tensors do not match the model, or the folder cannot be written.
    """
    try:
        model = _whole(name, tensors) if adapter is None else _merged(name, tensors, adapter)
    except (AttributeError, KeyError, RuntimeError) as error:
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
            write_text(partial / CARD, card)


def _whole(name: str, tensors: dict[str, Tensor]) -> PreTrainedModel:
    model: Any = AutoModelForCausalLM.from_config(load_config(name, "student"))
    model.to(next(iter(tensors.values())).dtype)
    model.load_state_dict(tensors)
    return model


def _merged(name: str, tensors: dict[str, Tensor], adapter: AdapterRecord) -> PreTrainedModel:
    model = load_causal_lm(name, "student", adapter.dtype)
    adapter.check_base(name, fingerprint(model.parameters()))
    model.float()
    adapter.adapter().merge_into(model, tensors)
    return model


def export_adapter(name: str, tensors: dict[str, Tensor], out: Path, card: str, adapter: AdapterRecord) -> None:
    """Write an adapter folder of PEFT atomically.

    Args:
        name: initial model of the student, the base model of the adapter.
        tensors: state dict of the adapter.
        out: folder to write.
        card: model card.
        adapter: adapter of the checkpoint.

    Raises:
        UserError: if PEFT is not installed, or the folder cannot be written.
    """
    lora, tokenizer = adapter.adapter(), load_tokenizer(name, "student")
    with writing("OUT", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial:
            partial.mkdir(exist_ok=True)
            lora.save(partial, tensors, name)
            tokenizer.save_pretrained(partial)
            write_text(partial / CARD, card)

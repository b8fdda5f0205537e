"""Write the embedded tasks in verl's layout, each row with its teacher: `python scripts/make_verl_data.py FOLDER`.

The columns and their types are those of published data such as G-OPD's (arXiv 2602.12125): `data_source`, `prompt`,
`ability`, `reward_model`, `extra_info`. Train with `configs/data/verl.yaml`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fireopd.atomic_files import replacing
from fireopd.prompts import PromptText, TinyPrompts

TEXT = pyarrow.string()
SCHEMA = pyarrow.schema(
    {
        "data_source": TEXT,
        "prompt": pyarrow.list_(pyarrow.struct({"content": TEXT, "role": TEXT})),
        "ability": TEXT,
        "reward_model": pyarrow.struct({"ground_truth": TEXT, "style": TEXT}),
        "extra_info": pyarrow.struct({"index": pyarrow.int64(), "opd_teacher": TEXT, "split": TEXT}),
    }
)
"""Columns of a file."""


def row(text: PromptText, split: str, index: int) -> dict[str, Any]:
    """Return a prompt as a row."""
    return {
        "data_source": text.task,
        "prompt": text.content,
        "ability": text.task,
        "reward_model": {"ground_truth": text.answer, "style": "rule"},
        "extra_info": {"index": index, "opd_teacher": text.teacher, "split": split},
    }


def write(texts: Sequence[PromptText], path: Path, split: str) -> None:
    """Write a file of prompts."""
    rows = [row(text, split, index) for index, text in enumerate(texts)]
    with replacing(path) as partial:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, SCHEMA), partial)
    print(f"{path}: {len(rows)} rows")


def main() -> None:
    """Write the files `train.parquet` and `val.parquet`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--train", type=int, default=9600, help="training prompts, half of each task")
    parser.add_argument("--val", type=int, default=128, help="validation prompts of each task")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training prompts")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    source = TinyPrompts(num_training=options.train, num_validation=options.val)
    write(source.training(options.seed), options.folder / "train.parquet", "train")
    write(source.validation(), options.folder / "val.parquet", "test")


if __name__ == "__main__":
    main()

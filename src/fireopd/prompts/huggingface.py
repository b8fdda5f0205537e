"""Prompts from Hugging Face datasets (extra `data`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.errors import UserError, import_extra
from fireopd.prompts.arrow import arrow_problem, arrow_rows
from fireopd.prompts.tabular import Table, TablePrompts

__all__ = ["HFPrompts"]


@dataclass(frozen=True)
class HFPrompts(TablePrompts):
    """Prompts from a Hugging Face dataset, with the columns of `JSONLPrompts`. Rows are numbered from 0."""

    path: str
    """Name on the hub, folder written by save_to_disk, or folder of data files."""
    train: str = "train"
    """Split of the training prompts. A part of a split such as `train[:90%]` requires a dataset that was not written
    by save_to_disk. A dataset saved without splits is used for training as a whole."""
    val: str | None = None
    """Split of the validation prompts; null for no validation."""
    subset: str | None = None
    """Subset (`name` on the hub) of a dataset with several."""
    data_files: str | None = None
    """Pattern of the files to read; together they are the split `train`. Null for all files."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null for the newest."""

    def training_table(self) -> Table:
        """Open the training split."""
        return self._open(self.train, "data.prompts.train")

    def validation_table(self) -> Table | None:
        """Open the validation split."""
        return None if self.val is None else self._open(self.val, "data.prompts.val")

    def _open(self, split: str, key: str) -> Table:
        datasets = import_extra("datasets", "data", "data.prompts.path", self.path)
        folder = Path(self.path).expanduser()
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        try:
            if saved:
                dataset = _split(datasets.load_from_disk(str(folder)), split, key)
            else:
                where = str(folder) if folder.is_dir() else self.path
                part = {"name": self.subset, "data_files": self.data_files, "revision": self.revision}
                dataset = datasets.load_dataset(where, split=split, **part)
        except UserError:
            raise
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            problem = f"split {split} cannot be read ({arrow_problem(error)})"
            remedy = "give a folder, or the name of a dataset on a reachable hub, and an existing split and subset"
            raise UserError("data.prompts.path", self.path, problem, remedy) from error
        name = f"{self.path}/{split}"
        selected = dataset.select_columns(self.columns.select(dataset.column_names))
        batches = selected.with_format("arrow").iter(batch_size=1024)
        return Table(key, name, dataset.column_names, arrow_rows(batches, key, name))


def _split(dataset: Any, split: str, key: str) -> Any:
    """Return a split of a dataset written by save_to_disk. A dataset saved without splits is for training only."""
    if not isinstance(dataset, dict):
        if (key, split) == ("data.prompts.train", "train"):
            return dataset
        remedy = "remove it, and hold out prompts for validation with data.prompts.held_out"
        raise UserError(key, split, "the dataset was saved without splits, so all rows are for training", remedy)
    if split not in dataset:
        raise UserError(key, split, "unknown split", f"the splits are {', '.join(dataset)}")
    return dataset[split]

"""Prompts from Parquet files, read by pyarrow (extra `data`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireopd.errors import UserError, import_extra
from fireopd.prompts.arrow import ARROW_ERRORS, arrow_problem, arrow_rows
from fireopd.prompts.columns import Columns
from fireopd.prompts.tabular import FilePrompts, Table

__all__ = ["ParquetPrompts", "read_parquet"]


@dataclass(frozen=True)
class ParquetPrompts(FilePrompts):
    """Prompts from Parquet files, with the columns of `JSONLPrompts`. Rows are numbered from 0."""

    def open(self, path: Path, key: str) -> Table:
        """Open a Parquet file."""
        return read_parquet(path, key, self.columns)


def read_parquet(path: Path, key: str, columns: Columns) -> Table:
    """Return the rows of a Parquet file; reads only the required columns.

    Raises:
        UserError: for the setting `key`, if the file cannot be read or pyarrow is not installed.
    """
    parquet = import_extra("pyarrow.parquet", "data", key, str(path))
    try:
        file: Any = parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
    except ARROW_ERRORS as error:
        problem = f"cannot be read ({arrow_problem(error)})"
        raise UserError(key, str(path), problem, "give the path of a Parquet file") from error
    batches = file.iter_batches(batch_size=1024, columns=columns.select(names))
    return Table(key, str(path), names, arrow_rows(batches, key, str(path)))

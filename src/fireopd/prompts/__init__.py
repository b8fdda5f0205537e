"""Sources of training and validation prompts. Entry-point group: `fireopd.prompts`."""

from fireopd.prompts.base import PromptSource, PromptText
from fireopd.prompts.columns import Columns
from fireopd.prompts.corruption import CorruptedPrompts, JunkPrompts, MisroutedPrompts
from fireopd.prompts.huggingface import HFPrompts
from fireopd.prompts.jsonl import JSONLPrompts
from fireopd.prompts.mixture import MixedPrompts
from fireopd.prompts.parquet import ParquetPrompts
from fireopd.prompts.reasoning_gym import ReasoningGymPrompts
from fireopd.prompts.tabular import FilePrompts, Table, TablePrompts
from fireopd.prompts.tiny import TinyPrompts
from fireopd.prompts.verl import VerlColumns, VerlPrompts

__all__ = [
    "Columns",
    "CorruptedPrompts",
    "FilePrompts",
    "HFPrompts",
    "JSONLPrompts",
    "JunkPrompts",
    "MisroutedPrompts",
    "MixedPrompts",
    "ParquetPrompts",
    "PromptSource",
    "PromptText",
    "ReasoningGymPrompts",
    "Table",
    "TablePrompts",
    "TinyPrompts",
    "VerlColumns",
    "VerlPrompts",
]

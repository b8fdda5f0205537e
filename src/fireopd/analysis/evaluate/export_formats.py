"""Export of responses to the input files of external code evaluators, which execute the programs.

EvalPlus (`evalplus.evaluate --dataset humaneval --samples FILE`): JSON lines of `{"task_id", "solution"}`, one line
per response, where the solution is a complete program (docs/cli.md of evalplus/evalplus).
LiveCodeBench (`python -m lcb_runner.runner.custom_evaluator --custom_output_file FILE`): one JSON list of
`{"question_id", "code_list"}`, which must contain every problem of the evaluated release
(lcb_runner/runner/custom_evaluator.py of LiveCodeBench/LiveCodeBench).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fireopd.analysis.evaluate.output_folder import EvaluationFolder
from fireopd.analysis.evaluate.records import ProblemRecord
from fireopd.atomic_files import write_text
from fireopd.verifiers.code_blocks import last_block

__all__ = ["Export", "export", "program"]

Export = Literal["evalplus", "livecodebench"]
"""External evaluators."""


def program(text: str) -> str:
    """Return the last fenced code block of a response, or the whole response without one."""
    block = last_block(text)
    return text if block is None else block


def export(
    kind: Export, folder: EvaluationFolder, model: str, benchmark: str, records: Sequence[ProblemRecord]
) -> Path:
    """Write the responses of a model to a benchmark for an external evaluator; return the path of the file."""
    answers = {
        record.id.removeprefix(f"{benchmark}:"): [program(r.text) for r in record.responses] for record in records
    }
    if kind == "evalplus":
        path = folder.export(model, f"{benchmark}.evalplus.jsonl")
        rows = [{"task_id": name, "solution": code} for name, codes in answers.items() for code in codes]
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        path = folder.export(model, f"{benchmark}.livecodebench.json")
        text = (
            json.dumps([{"question_id": name, "code_list": codes} for name, codes in answers.items()], indent=1) + "\n"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path

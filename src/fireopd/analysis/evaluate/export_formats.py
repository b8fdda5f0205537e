"""Responses in the files that the evaluators of code benchmarks read; they run the programs, not we.

EvalPlus (`evalplus.evaluate --dataset humaneval --samples FILE`): JSON lines of `{"task_id", "solution"}`, a line for
each response, the solution being a whole program (docs/cli.md of evalplus/evalplus).
LiveCodeBench (`python -m lcb_runner.runner.custom_evaluator --custom_output_file FILE`): one JSON list of
`{"question_id", "code_list"}`, which must hold every problem of the release that is evaluated
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

Export = Literal["evalplus", "livecodebench"]
"""Programs that responses can be exported for."""


def program(text: str) -> str:
    """Return the last fenced block of a response, or all of it if there is none."""
    block = last_block(text)
    return text if block is None else block


def export(
    kind: Export, folder: EvaluationFolder, model: str, benchmark: str, records: Sequence[ProblemRecord]
) -> Path:
    """Write the responses of a model to a benchmark for another program, and return the file."""
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

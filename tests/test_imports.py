"""What is not imported: one fresh process, since imports take seconds."""

import subprocess
import sys

CODE = """
import sys
sys.modules["pytest"] = None  # an import of it fails
import fireopd.testing
import fireopd.cli.entry_points
fireopd.cli.entry_points.load_plugins()
print([name for name in ("datasets", "pyarrow.parquet", "reasoning_gym", "vllm") if name in sys.modules])
"""

READERS = """
import sys
from fireopd.cli.main import main
main(["runs", sys.argv[1]])
import fireopd.cli.commands.report
print([name for name in ("lightning", "torch", "transformers") if name in sys.modules])
"""


def test_conformance_checks_do_not_import_pytest_and_plug_ins_import_no_reader_before_a_source_needs_it():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_lists_of_runs_need_no_library_of_models(tmp_path):
    """Their import takes seconds, and minutes from a slow disk."""
    command = [sys.executable, "-c", READERS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, f"No runs in {tmp_path}.\n[]\n"), done.stderr

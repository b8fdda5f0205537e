"""Sphinx configuration: `sphinx-build -W -n -b html docs docs/_build`.

Code blocks of the language `bash` run unchanged in a checkout. Blocks of the class `gpu` need a GPU, a model hub, a
cluster, vLLM or models and data that the documentation does not provide; they are shown, never executed.
"""

import re
from importlib.metadata import version as installed_version
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

project = "fireopd"
author = "The fireopd authors"
release = installed_version("fireopd")
version = release

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
default_role = "code"  # docstrings mark names with single backticks
nitpicky = True
nitpick_ignore_regex = [
    # Other projects: their inventories are not downloaded, so that the documentation builds offline.
    (r"py:.*", r"(torch|lightning|transformers|torchmetrics|safetensors|httpx|rich|vllm|numpy|jsonargparse)(\..*)?"),
    (r"py:.*", r"(nn\.Module|(pl\.)?Trainer|PreTrainedModel|PreTrainedConfig|ModelParallelStrategy|DeviceMesh)"),
    # The standard library, likewise, and type variables.
    (r"py:.*", r"(abc|argparse|collections|concurrent|contextlib|enum|importlib|os)\..*"),
    (r"py:.*", r"(pathlib|pickle|random|types|typing)\..*"),
    (r"py:.*", r"UnpicklingError|WorkerError|fireopd\..*\.(S|T|Answer)"),
]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

# Only the MyST notebooks below notebooks/ have a kernel in their header, and only those are executed.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"fireopd {release}"
html_show_copyright = False


def google_docstrings(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText: single backticks mark code, sections are those of Google's style.

    sphinx.ext.napoleon as an extension would take the words before a colon in the docstring of an attribute for a type.
    """
    lines[:] = [re.sub(r"(?<![`:\w])`([^`]+)`(?![`_])", r"``\1``", line) for line in lines]
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, Config(), app, what, name, obj, options).lines()


def setup(app: Sphinx) -> None:
    """Connect the conversion of docstrings."""
    app.connect("autodoc-process-docstring", google_docstrings)

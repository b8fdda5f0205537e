"""Sphinx configuration: `sphinx-build -W -n -b html docs docs/_build`.

Code blocks of the language `bash` run as they stand in a checkout. Blocks of the class `gpu` need a GPU, a model hub, a
cluster, vLLM or models and data that the documentation does not provide; they are shown, never executed.
"""

from importlib.metadata import version as installed_version

project = "fireopd"
author = "The fireopd authors"
release = installed_version("fireopd")
version = release

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
default_role = "code"  # docstrings mark names with single backticks
nitpicky = True
nitpick_ignore_regex = [
    # Other projects: their inventories are not downloaded, so that the documentation builds offline.
    (r"py:.*", r"(torch|lightning|transformers|torchmetrics|safetensors|httpx|rich|vllm|numpy|argparse)(\..*)?"),
]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

# Only the MyST notebooks below notebooks/ have a kernel in their header, and only those are executed.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"fireopd {release}"
html_show_copyright = False

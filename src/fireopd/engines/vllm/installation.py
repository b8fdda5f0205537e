"""Installation of vLLM: supported version, import, and how to install it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fireopd.errors import MissingResourceError, UserError

__all__ = ["INSTALL", "VERSION", "import_vllm", "quiet"]

VERSION = "0.32."
"""Prefix of the supported vLLM versions."""
INSTALL = "in the repository, pip install '.[vllm]' with a GPU, bash scripts/install_vllm_cpu.sh without"
"""Installation of vLLM, for error messages."""


def import_vllm(key: str, value: str) -> Any:
    """Import and return vLLM with logging reduced to errors.

    Raises:
        UserError: if vLLM is not installed or its import fails.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        with quiet():
            import vllm
    except ModuleNotFoundError as error:
        raise MissingResourceError(
            key, value, f"needs vllm, which is not installed ({error.name} is missing)", f"install it: {INSTALL}"
        ) from error
    except (ImportError, RuntimeError) as error:
        problem = f"needs vllm, which cannot be imported ({str(error).splitlines()[0]})"
        raise UserError(key, value, problem, f"reinstall it: {INSTALL}") from error
    return vllm


@contextmanager
def quiet() -> Iterator[None]:
    """Context without the warnings of vLLM's import and start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

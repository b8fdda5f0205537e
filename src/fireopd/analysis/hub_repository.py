"""Upload of an exported model to a repository of the Hugging Face Hub. Repeating an upload changes nothing."""

from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, errors
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # documented

from fireopd.errors import UserError

__all__ = ["check_repository", "push"]

HTTPError = cast(type[Exception], errors.HfHubHTTPError.__mro__[1])
"""Base class of all errors of the library that the hub's client uses, those of the network included."""


def check_repository(name: str) -> None:
    """Check the name of a repository and the access to the hub, before anything is written.

    Raises:
        UserError: if the name is not `user/name`, the hub is switched off, or the token is missing or refused.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError("--push", name, str(error), "give USER/NAME") from error
    if name.count("/") != 1:
        raise UserError("--push", name, "it names no user or organization", "give USER/NAME")
    if HF_HUB_OFFLINE:
        raise UserError("--push", name, "the hub is switched off (HF_HUB_OFFLINE)", "unset HF_HUB_OFFLINE")
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise UserError(
            "--push", name, "no token of the hub is stored", "run hf auth login, or set HF_TOKEN"
        ) from error
    except HTTPError as error:
        raise _refused(name, error) from error


def push(folder: Path, name: str, *, private: bool) -> str:
    """Create the repository unless it exists, upload a folder in one commit, and return the address.

    Files that the hub has are not sent again. Files of the repository that the folder does not hold stay.

    Args:
        folder: folder of a model.
        name: repository, `user/name`.
        private: create the repository as private; an existing one keeps its visibility.

    Raises:
        UserError: if the hub refuses, or cannot be reached.
    """
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload of fireopd export")
    except HTTPError as error:
        raise _refused(name, error) from error
    return str(address)


def _refused(name: str, error: Exception) -> UserError:
    problem = f"the hub refused it or is not reachable ({str(error).strip().splitlines()[0]})"
    return UserError("--push", name, problem, "check token, name and network, then repeat the command with --force")

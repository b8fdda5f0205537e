"""Names of models on the Hugging Face Hub, checked with one request before transformers asks for each file.

transformers asks several times for every file of a model before it gives up, which takes minutes without a network.
"""

from functools import lru_cache

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT, HF_HUB_OFFLINE
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is that of httpx or httpx2, by version
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, but exported lazily
from lightning.pytorch.utilities import rank_zero_warn

from fireopd.errors import UserError

__all__ = ["check_hub_name"]


def check_hub_name(name: str, key: str) -> None:
    """Check that a model is on the hub or in its cache.

    Logs a warning if it is in the cache and the hub is not reachable: transformers waits before it reads the cache.

    Args:
        name: `organization/name`.
        key: setting that holds the name, for error messages.

    Raises:
        UserError: if there is no such model, or none in the cache while the hub is offline or not reachable.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        problem = "no such folder, and not a valid name of a model on the hub"
        raise UserError(key, name, problem, "give a model folder, or ORGANIZATION/NAME") from error
    if HF_HUB_OFFLINE:
        if not _cached(name):
            problem = "no such folder, and no such model in the cache of the hub, which is offline (HF_HUB_OFFLINE)"
            raise UserError(key, name, problem, "give a model folder, or download the model")
        return
    try:
        _ask(name)
    except RepositoryNotFoundError as error:
        if isinstance(error, GatedRepoError):  # transformers reports how to get access
            return
        problem = "no such folder, and no model of that name on the hub, or a private one"
        raise UserError(key, name, problem, "correct the name, or log in with: hf auth login") from error
    except HfHubHTTPError:  # the hub answers: transformers reports the rest
        return
    except (HTTPError, OSError) as error:
        problem = f"the hub is not reachable ({type(error).__name__})"
        if not _cached(name):
            remedy = "give a model folder, or download the model"
            raise UserError(key, name, f"no such folder, and {problem}", remedy) from error
        rank_zero_warn(f"{key}: {problem}: {name} is read from the cache. HF_HUB_OFFLINE=1 avoids the wait for it")


@lru_cache(maxsize=64)
def _ask(name: str) -> None:
    """Ask the hub for a model. Only a success is kept, so that a login or another network counts at once."""
    HfApi().model_info(name, timeout=HF_HUB_ETAG_TIMEOUT)


def _cached(name: str) -> bool:
    return isinstance(try_to_load_from_cache(name, "config.json"), str)

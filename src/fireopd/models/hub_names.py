"""Names of models on the Hugging Face Hub, checked with one request before transformers asks for each file.

transformers asks several times for every file of a model before it gives up, which takes minutes without a network.
"""

from functools import lru_cache

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from lightning.pytorch.utilities import rank_zero_warn

from fireopd.errors import UserError

__all__ = ["check_hub_name"]

TIMEOUT = 10.0
"""Seconds within which the hub has to answer."""


def check_hub_name(name: str, key: str) -> None:
    """Check that a model is on the hub or in its cache.

    Logs a warning if it is in the cache and the hub is not reachable: transformers waits before it reads the cache.

    Args:
        name: `organization/name`.
        key: setting that holds the name, for error messages.

    Raises:
        UserError: if there is no such model, or none in the cache while the hub is offline or not reachable.
    """
    problem, unreachable = _answer_of_hub(name)
    cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    if problem and not (cached and unreachable):
        raise UserError(key, name, f"no such folder, and {problem}", "give a model folder, or download the model")
    if problem and not HF_HUB_OFFLINE:
        rank_zero_warn(f"{key}: {problem}: {name} is read from the cache. HF_HUB_OFFLINE=1 avoids the wait for it")


@lru_cache(maxsize=64)
def _answer_of_hub(name: str) -> tuple[str, bool]:
    """Return what is wrong with a name, nothing if it is a model of the hub, and whether the hub was not reachable."""
    if HF_HUB_OFFLINE:
        return "no model of that name in the cache of the hub, which is offline (HF_HUB_OFFLINE)", True
    try:
        HfApi().model_info(name, timeout=TIMEOUT)
    except HFValidationError:
        return "no name of a model on the hub", False
    except RepositoryNotFoundError:
        return "no model of that name on the hub, or a private one (hf auth login)", False
    except HfHubHTTPError:  # it answers: transformers reports the rest
        return "", False
    except Exception as error:  # the library of the connection depends on the version of huggingface_hub
        return f"the hub is not reachable ({type(error).__name__})", True
    return "", False

"""Names of models on the hub: one request decides, and its answer is told apart."""

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RepositoryNotFoundError

from fireopd.errors import UserError
from fireopd.models import hub_names, loading
from fireopd.models.loading import load_config, load_tokenizer, resolve


def answered(kind, status):
    return kind("no", response=httpx.Response(status, request=httpx.Request("GET", "http://hub")))


@pytest.fixture
def hub(monkeypatch):
    """Hub that raises `hub.error` or knows every model, with `hub.cached` as its cache, and counts its requests."""

    class Hub:
        error, cached, requests = None, None, 0

        def model_info(self, name, timeout):
            Hub.requests += 1
            if Hub.error:
                raise Hub.error

    hub_names._ask.cache_clear()
    monkeypatch.setattr(hub_names, "HfApi", Hub)
    monkeypatch.setattr(hub_names, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_names, "try_to_load_from_cache", lambda *arguments: Hub.cached)
    yield Hub
    hub_names._ask.cache_clear()


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (answered(RepositoryNotFoundError, 404), "no model of that name on the hub, or a private one"),
        (HTTPError("no route"), r"the hub is not reachable \(HTTPError\)"),
        (ConnectionResetError("closed"), r"the hub is not reachable \(ConnectionResetError\)"),
    ],
)
def test_a_name_without_a_model_is_refused_before_transformers_asks(hub, monkeypatch, error, problem):
    hub.error = error
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", None)
    for requests in (1, 2):  # a login or another network counts at once
        with pytest.raises(UserError, match=f"^model.student: 'some/model': no such folder, and {problem}"):
            load_config("some/model", "model.student")
        assert hub.requests == requests


@pytest.mark.parametrize("name", ["some/model 2", "my--model", "model-"])
@pytest.mark.parametrize("offline", [False, True])
def test_an_invalid_name_is_refused_without_a_request(monkeypatch, name, offline):
    monkeypatch.setattr(hub_names, "HfApi", None)
    monkeypatch.setattr(hub_names, "HF_HUB_OFFLINE", offline)
    with pytest.raises(UserError, match="no such folder, and not a valid name of a model on the hub"):
        load_tokenizer(name, "model.student")


def test_a_known_model_takes_one_request(hub):
    for _ in range(2):
        hub_names.check_hub_name("some/model", "model.student")
    assert hub.requests == 1


@pytest.mark.parametrize(
    "error", [None, answered(HfHubHTTPError, 500), answered(HfHubHTTPError, 429), answered(GatedRepoError, 403)]
)
def test_a_hub_that_answers_leaves_the_rest_to_transformers(hub, error):
    hub.error = error
    hub_names.check_hub_name("some/model", "model.student")


def test_the_cache_serves_where_the_hub_is_not_reachable(hub):
    hub.error, hub.cached = HTTPError("no route"), "/cache/config.json"
    with pytest.warns(UserWarning, match=r"some/model is read from the cache. HF_HUB_OFFLINE=1 avoids the wait"):
        hub_names.check_hub_name("some/model", "model.student")
    hub.error = answered(RepositoryNotFoundError, 404)
    with pytest.raises(UserError, match="no model of that name"):
        hub_names.check_hub_name("other/model", "model.student")


def test_the_cache_decides_where_the_hub_is_switched_off(hub, monkeypatch):
    monkeypatch.setattr(hub_names, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no such folder, and no such model in the cache of the hub"):
        hub_names.check_hub_name("some/model", "model.student")
    hub.cached = "/cache/config.json"
    hub_names.check_hub_name("some/model", "model.student")
    assert hub.requests == 0


def test_folders_are_not_looked_up(hub):
    load_tokenizer("tiny/student", "model.student")
    assert resolve("some/model", "model.student") == "some/model"
    assert hub.requests == 0

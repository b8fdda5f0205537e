"""Conformance checks of rollout engines: each fault is found and named, and an engine without a fault passes."""

import math
import re
from dataclasses import dataclass, field, replace

import pytest
import torch
from helpers.wrong_engine import WrongEngine

from fireopd.engines import HFEngine
from fireopd.engines.base import NO_WEIGHTS
from fireopd.errors import UserError
from fireopd.models.loading import load_causal_lm
from fireopd.testing import check_engine, engine_checks
from fireopd.testing.plugin_checks import example_prompts, violations_of
from fireopd.types import Response

STUDENT = "tiny/student"


@pytest.fixture(scope="module")
def model():
    return load_causal_lm(STUDENT, "student", "float32").eval()


@pytest.fixture(scope="module")
def right(model):
    """A right engine with the student's weights, and its case."""
    engine = HFEngine(max_response_length=6, temperature=1.25)
    engine.setup(STUDENT, torch.device("cpu"))
    case = engine_checks.EngineCase(engine, STUDENT, model, example_prompts(STUDENT))
    case.load(3)
    return case


def each(change):
    """Return a change of every response."""
    return lambda engine, responses: [change(response) for response in responses]


def logprobs(change):
    return each(lambda r: replace(r, logprobs=tuple(map(change, r.logprobs))))


def ended(response):
    """Return a response that ends with the stop token."""
    return Response((*response.tokens[:3], 1), response.logprobs[:4], finished=True)


VALID, ALONE = engine_checks.returns_valid_responses, engine_checks.depends_on_prompt_and_seed_only
SAMPLED, PROBES = engine_checks.returns_logprobs_of_the_sampled_distribution, engine_checks.scores_probes


@pytest.mark.parametrize(
    ("check", "faults", "message"),
    [
        (VALID, {"responses": lambda e, r: r or [Response((5,), (-1.0,), True)]}, "returned 1 responses to 0 prompts"),
        (VALID, {"responses": lambda e, r: r[1:]}, "returned 31 responses to 32 prompts"),
        (VALID, {"responses": each(lambda r: r.tokens)}, "returned a tuple for the prompt kit:0. Return a Response"),
        (VALID, {"responses": each(lambda r: replace(r, tokens=(99, *r.tokens[1:])))}, "returned the token id 99"),
        (VALID, {"responses": each(lambda r: Response((), (), True))}, "returned a response without tokens"),
        (VALID, {"responses": each(lambda r: Response((5,) * 7, (-1.0,) * 7, False))}, "a response of 7 tokens"),
        (VALID, {"responses": each(lambda r: replace(r, finished=None))}, "returned finished=None"),
        (
            VALID,
            {"responses": each(lambda r: replace(ended(r), finished=False))},
            "returns finished=False for 4 tok",
        ),
        (
            VALID,
            {"responses": each(lambda r: replace(r, finished=True))},
            "returns finished=True for 6 tokens",
        ),
        (VALID, {"responses": each(lambda r: Response((5, 1, 5), (-1.0,) * 3, False))}, "ends at its first stop token"),
        (VALID, {"responses": each(lambda r: Response((5,), (-1.0,), False))}, "cuts a response at 1 tokens"),
        (VALID, {"responses": logprobs(lambda x: -x)}, "returned the log-probability .* Return log-probabilities in"),
        (VALID, {"responses": logprobs(lambda x: math.nan)}, "returns log-probabilities that are not finite"),
        (ALONE, {"responses": lambda e, r: r[::-1]}, "returns other tokens for the same prompt and seed, in another"),
        (ALONE, {"seeds": lambda e, seeds: [s + e.calls for s in seeds]}, "returns other tokens for the same prompt"),
        (ALONE, {"seeds": lambda e, seeds: [0 for _ in seeds]}, "returns the same response for every seed"),
        (
            SAMPLED,
            {"responses": logprobs(lambda x: 1.25 * x)},
            "returns log-probabilities that are .* after the temp",
        ),
        (PROBES, {"probed": lambda x: [v - 0.1 for v in x]}, "returns a probe that is 0.1 nats from the student's"),
        (PROBES, {"probed": lambda x: x[1:]}, "returned .* values of .* for a probe of"),
        (PROBES, {"probed": lambda x: [math.nan] * len(x)}, "returned the log-probability nan"),
    ],
)
def test_a_fault_is_found_with_the_name_of_the_engine(right, check, faults, message):
    engine = WrongEngine(6, 1.25, inner=right.engine, **faults)
    case = engine_checks.EngineCase(engine, STUDENT, right.model, right.prompts)
    [found] = violations_of("Wrong", case, [check])
    assert re.match(f"Wrong .*{message}", found), found


def test_a_sharper_distribution_than_its_probabilities_is_found(right, model):
    """Responses at temperature 0.5 with the log-probabilities of temperature 1.25."""
    sharp = HFEngine(max_response_length=6, temperature=0.5)
    sharp.setup(STUDENT, torch.device("cpu"))
    engine = WrongEngine(6, 1.25, inner=sharp)
    case = engine_checks.EngineCase(engine, STUDENT, model, right.prompts)
    drawn = [
        replace(
            r, logprobs=tuple(case.distributions(p.tokens, r.tokens, 1.25)[range(len(r.tokens)), r.tokens].tolist())
        )
        for p, r in zip(case.rows[0], sharp.generate(*case.rows), strict=True)
    ]
    case.responses = drawn
    [found] = violations_of("Wrong", case, [SAMPLED])
    assert "samples tokens that are likelier than their probabilities say" in found


@dataclass
class Frozen(HFEngine):
    """Samples with a setting that it read in `setup`."""

    name: str = ""
    value: float = field(default=0.0, init=False, compare=False, repr=False)

    def setup(self, model, device):
        super().setup(model, device)
        self.value = getattr(self, self.name)

    def generate_mixed(self, rows):
        key = {"temperature": "temperature", "max_response_length": "max_length"}[self.name]
        return super().generate_mixed([replace(row, **{key: self.value}) for row in rows])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temperature", "nats from those at the temperature of a row, 2.5. Read temperature in generate"),
        ("max_response_length", "returns 6 tokens for a row with max_length 5. Read max_response_length in generate"),
    ],
)
def test_settings_that_are_read_before_the_rows_are_found(model, name, message):
    for engine in (HFEngine(max_response_length=6, temperature=1.25), Frozen(6, 1.25, name=name)):
        engine.setup(STUDENT, torch.device("cpu"))
        case = engine_checks.EngineCase(engine, STUDENT, model, example_prompts(STUDENT))
        case.load(3)
        found = violations_of("Own", case, [engine_checks.follows_the_settings_of_rows])
        assert (message in found[0]) if isinstance(engine, Frozen) else not found


def test_wrong_log_probabilities_are_not_blamed_on_the_weights():
    found = check_weights(responses=logprobs(lambda x: 1.25 * x), sampled=True)
    assert len(found) == 1
    assert "returns log-probabilities that are" in found[0]


@dataclass
class Greedy(HFEngine):
    """Accepts the temperature 0 only."""

    def check(self, key, student):
        if self.temperature:
            raise UserError(key, self.temperature, "another temperature", "use 0")


@pytest.mark.parametrize("engine", [Greedy(6, 0.0), HFEngine(6, 0.0), HFEngine(6, top_k=1), HFEngine(6, top_p=1e-9)])
def test_engines_with_one_candidate_pass(engine):
    check_engine(engine)


def check_weights(*, sampled=False, **faults):
    engine = WrongEngine(6, 1.25, inner=HFEngine(max_response_length=6, temperature=1.25), **faults)
    case = engine_checks.EngineCase(engine, STUDENT, load_causal_lm(STUDENT, "s", "float32"), example_prompts(STUDENT))
    before = [engine_checks.takes_weights, *[SAMPLED] * sampled]
    return violations_of("Wrong", case, [*before, engine_checks.replaces_all_weights])


def consumed(weights):
    list(weights)
    return []


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"loaded": consumed}, "kept older weights in some tensors"),
        ({"loaded": lambda w: [pair for pair in w if "norm" not in pair[0]]}, "kept older weights in some tensors"),
        ({"loaded": lambda w: [next(iter(w))]}, "leaves 4. pairs of load_weights unread"),
        ({"version": lambda version: NO_WEIGHTS}, r"has policy_version -1 after load_weights\(..., 3\)"),
        ({"version": lambda version: 0}, "has policy_version 0 after setup"),
        ({"version": lambda version: min(version, 3)}, r"has policy_version 3 after load_weights\(..., 4\)"),
    ],
)
def test_weights_that_do_not_arrive_are_found(faults, message):
    found = check_weights(**faults)
    assert any(re.match(f"Wrong {message}", paragraph) for paragraph in found), found


def without_stop(response):
    return Response(response.tokens[:-1], response.logprobs[:-1], True) if response.finished else response


def test_stop_tokens_are_tested_with_a_student_that_ends_its_responses():
    for change, message in (
        (each(lambda r: r), None),
        (each(lambda r: replace(r, finished=False)), "returns finished=False"),
        (
            each(lambda r: Response(r.tokens[:-1], r.logprobs[:-1], True) if r.finished else r),
            "without tokens|finished=",
        ),
    ):
        engine = WrongEngine(6, inner=HFEngine(max_response_length=6), responses=change)
        engine.setup(STUDENT, torch.device("cpu"))
        own = load_causal_lm(STUDENT, "s", "float32").eval()
        case = engine_checks.EngineCase(engine, STUDENT, own, example_prompts(STUDENT))
        case.load(3)
        found = violations_of("Wrong", case, [engine_checks.ends_at_stop_tokens])
        assert (not found) if message is None else re.search(message, found[0]), found
        assert sum(response.finished for response in engine.inner.generate(*case.rows)) > 5


class Fixed(HFEngine):
    """Accepts the temperature 1 only."""

    def check(self, key, student):
        if self.temperature != 1:
            raise UserError(key, self.temperature, "another temperature", "use 1")
        super().check(key, student)


@pytest.mark.parametrize(
    ("engine", "temperature"), [(HFEngine(), 1.25), (Fixed(), 1.0), (HFEngine(temperature=0.7), 0.7)]
)
def test_the_temperature_of_the_kit_is_one_that_the_engine_accepts(engine, temperature):
    fresh = engine_checks._with_kit_settings(engine, STUDENT)
    assert (fresh.temperature, fresh.max_response_length) == (temperature, engine_checks.LONGEST)
    assert fresh is not engine


def test_close_and_settings_are_checked():
    class Keeps(HFEngine):
        def close(self):
            pass

    engine = Keeps()
    engine.policy_version = 3
    case = engine_checks.EngineCase(engine, STUDENT, None, [])
    assert violations_of("Keeps", case, [engine_checks.closes]) == [
        "Keeps keeps its policy_version after close. Call super().close()."
    ]
    shared = HFEngine()
    shared.for_another_model = lambda: shared
    case = engine_checks.EngineCase(shared, STUDENT, None, [])
    assert "returns no fresh engine" in violations_of("Shared", case, [engine_checks.closes])[0]
    with pytest.raises(TypeError, match=r"is not a RolloutEngine: pass an instance, HFEngine\(...\)"):
        check_engine(HFEngine)

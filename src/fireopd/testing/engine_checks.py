"""Conformance checks of rollout engines: responses, seeds, the sampled distribution, and weights that arrive."""

import dataclasses
from collections.abc import Sequence

import torch

from fireopd.engines import RolloutEngine
from fireopd.engines.base import NO_WEIGHTS, RowRequest
from fireopd.engines.contract import check_version, checked_responses
from fireopd.errors import UserError
from fireopd.models.loading import load_causal_lm, load_tokenizer, stop_tokens
from fireopd.testing.checks import report
from fireopd.testing.engine_case import RESPONSES, EngineCase
from fireopd.testing.plugin_checks import early_weights, example_prompts, settings_violations, violations_of
from fireopd.types import Response

__all__ = ["check_engine"]

LONGEST = 12
"""Largest length of the responses, tokens, whatever the setting of the engine."""
LIMIT = 6.0
"""Largest deviation of the mean log-probability from its expectation, standard deviations."""
TEMPERATURE = 1.25
"""Temperature of the responses of an engine whose setting is 1, if it accepts another one."""
EXPECTED = (
    "those of the student. They are those of the sampled distribution, after the temperature, then top_k, then top_p; "
    "raise max_probe_gap for an engine in half precision."
)
"""End of the message on log-probabilities."""


def check_engine(engine: RolloutEngine, student: str = "tiny/student") -> None:
    """Check the contract of a rollout engine on the CPU.

    Responses have at most 12 tokens, and the temperature 1.25 in the place of 1. Log-probabilities may differ from
    those of the student, after temperature, top_k and top_p, by the engine's `max_probe_gap`.

    Args:
        engine: an instance, with any settings.
        student: model that the engine is set up with.

    Raises:
        AssertionError: with one paragraph per violation: the observation and the fix.
    """
    name = type(engine).__name__
    found = [*settings_violations(engine, RolloutEngine, frozen=False), *early_weights(engine)]
    try:
        engine.check("data.engine", student)
    except UserError as error:
        report([*found, f"{name}.check refuses {student}: {error} Pass a student that it can run."], engine)
    model = load_causal_lm(student, "student", "float32").eval()
    case = EngineCase(_with_kit_settings(engine, student), student, model, example_prompts(student))
    report(found + violations_of(name, case, CHECKS, decisive=2), engine)


def _with_kit_settings(engine: RolloutEngine, student: str) -> RolloutEngine:
    """Return a fresh engine with short responses, and with a temperature other than 1 if it accepts one."""
    fresh = dataclasses.replace(engine, max_response_length=min(engine.max_response_length, LONGEST))
    if fresh.temperature != 1:
        return fresh
    return dataclasses.replace(fresh, temperature=_accepted_temperature(fresh, student, TEMPERATURE))


def _accepted_temperature(engine: RolloutEngine, student: str, temperature: float) -> float:
    """Return a temperature if an engine accepts it, else its own."""
    try:
        dataclasses.replace(engine, temperature=temperature).check("data.engine", student)
    except ValueError:
        return engine.temperature
    return temperature


def takes_weights(case: EngineCase) -> str:
    """Check setup, the version of the weights, and that all pairs are read."""
    case.engine.setup(case.student, torch.device("cpu"))
    if case.engine.policy_version != NO_WEIGHTS:
        return (
            f"has policy_version {case.engine.policy_version} after setup: leave it at {NO_WEIGHTS} until "
            f"load_weights, since the run may send the weights of a checkpoint."
        )
    missing = case.load(3)
    check_version(case.engine, 3)
    if missing:
        return f"leaves {missing} pairs of load_weights unread. Every process iterates over all pairs."
    return ""


def returns_valid_responses(case: EngineCase) -> str:
    """Check the responses, also for no prompts."""
    if case.generate([], []):
        return "returns responses to no prompts. Return an empty list."
    stops = stop_tokens(case.student, "student", load_tokenizer(case.student, "student"))
    for response in case.responses:
        if not torch.tensor(response.logprobs).isfinite().all():
            return "returns log-probabilities that are not finite for ordinary prompts. Compute them in float32."
        stopped = response.tokens[-1] in stops
        if stopped != response.finished or stops & set(response.tokens[:-1]):
            return (
                f"returns finished={response.finished} for {len(response.tokens)} tokens that end with "
                f"{response.tokens[-1]}. A response ends at its first stop token ({sorted(stops)}), finished=True; "
                f"a response that is cut has none, finished=False."
            )
        if not response.finished and len(response.tokens) < case.engine.max_response_length:
            return f"cuts a response at {len(response.tokens)} tokens: sample up to max_response_length."
    return ""


def depends_on_prompt_and_seed_only(case: EngineCase) -> str:
    """Check that a response does not depend on the other rows, their order, or earlier calls."""
    prompts, seeds = case.rows
    again = case.generate(prompts[::-1], seeds[::-1])[::-1]
    alone = [case.generate([prompts[row]], [seeds[row]])[0] for row in (0, RESPONSES, len(prompts) - 1)]
    pairs = [*zip(case.responses, again, strict=True)]
    pairs += [*zip([case.responses[row] for row in (0, RESPONSES, len(prompts) - 1)], alone, strict=True)]
    if any(one.tokens != other.tokens for one, other in pairs):
        return (
            "returns other tokens for the same prompt and seed, in another batch or order. Create one generator per "
            "row from its seed, and mask the padding."
        )
    sampled = {response.tokens for response in case.responses[:RESPONSES]}
    if len(sampled) == 1 and _is_chance(case.responses[:1]):
        return "returns the same response for every seed. Draw from the distribution, by the seed of the row."
    return ""


def _is_chance(responses: Sequence[Response]) -> bool:
    """Return whether responses, drawn again, would most likely be others."""
    return sum(sum(response.logprobs) for response in responses) < -3


def returns_logprobs_of_the_sampled_distribution(case: EngineCase) -> str:
    """Check the log-probabilities, and that tokens are drawn with these probabilities."""
    case.follows = False  # also if it raises
    problem = _is_greedy(case) if case.engine.sampling.greedy else _is_sampled(case)
    case.follows = not problem
    return problem


def _is_sampled(case: EngineCase) -> str:
    deviation = variance = 0.0
    gap = case.gap(case.rows[0], case.responses, case.engine.temperature)
    if not gap <= case.engine.max_probe_gap:
        return f"returns log-probabilities that are {gap:.3g} nats from {EXPECTED}"
    for candidates, tokens in case.candidates(case.rows[0], case.responses, case.engine.temperature):
        score, spread = candidates.surprise(tokens)
        deviation, variance = deviation + score, variance + spread
    score = deviation / max(variance, 1e-12) ** 0.5
    if abs(score) > LIMIT:
        kind = "likelier" if score > 0 else "less likely"
        return f"samples tokens that are {kind} than their probabilities say ({score:+.1f} standard deviations)."
    return ""


def _is_greedy(case: EngineCase) -> str:
    """Check that a greedy engine returns the most likely tokens, with log-probabilities of 0."""
    for prompt, response in zip(case.rows[0], case.responses, strict=True):
        all_tokens = case.distributions(prompt.tokens, response.tokens, 1.0)
        chosen = all_tokens.gather(-1, torch.tensor(response.tokens)[:, None])[:, 0]
        if (all_tokens.amax(-1) - chosen).max() > case.engine.max_probe_gap:
            return "returns other tokens than the most likely ones at temperature 0."
        if any(response.logprobs):
            return "returns log-probabilities other than 0 at temperature 0, where a token has the probability 1."
    return ""


def follows_the_settings_of_rows(case: EngineCase) -> str:
    """Check rows of another length and at another temperature, which rollout plans request."""
    engine, length = case.engine, max(1, case.engine.max_response_length - 1)
    temperature = _accepted_temperature(engine, case.student, 2 * engine.temperature or 1.0)
    rows = [RowRequest(prompt, 5 + place, length, temperature) for place, prompt in enumerate(case.prompts)]
    vocabulary = int(case.model.config.get_text_config().vocab_size)
    responses = checked_responses(engine, engine.sample(rows), case.prompts, vocabulary)
    longest = max(len(response.tokens) for response in responses)
    if longest > length:
        remedy = "Read max_response_length in generate, not in setup."
        return f"returns {longest} tokens for a row with max_length {length}. {remedy}"
    gap = case.gap(case.prompts, responses, temperature) if temperature and case.follows else 0.0
    if not gap <= engine.max_probe_gap:
        return (
            f"returns log-probabilities that are {gap:.3g} nats from those at the temperature of a row, "
            f"{temperature:g}. Read temperature in generate, not in setup."
        )
    return ""


def scores_probes(case: EngineCase) -> str:
    """Check the probe against the student."""
    gap = case.probe_gap()
    if gap <= case.engine.max_probe_gap:
        return ""
    return (
        f"returns a probe that is {gap:.3g} nats from the student's log-probabilities. Return, by a name of each copy "
        f"of the weights, those of the second and later tokens, at temperature 1."
    )


def replaces_all_weights(case: EngineCase) -> str:
    """Check that other weights of every tensor arrive in probes and responses."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.add_(0.3 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator))
    tokens = [response.tokens for response in case.responses]
    case.load(4)
    check_version(case.engine, 4)
    gap = case.probe_gap()
    if gap > case.engine.max_probe_gap:
        return f"kept older weights in some tensors: a probe is {gap:.3g} nats from the new student. Copy all tensors."
    del case.responses
    greedy = case.engine.sampling.greedy
    stale = case.follows and (_is_greedy(case) if greedy else _is_sampled(case))
    same = [response.tokens for response in case.responses] == tokens
    if stale or (same and _is_chance(case.responses)):
        return "samples from older weights after load_weights: clear caches that depend on the weights."
    return ""


@torch.no_grad()
def ends_at_stop_tokens(case: EngineCase) -> str:
    """Check responses of weights with which the student often ends its response."""
    head = case.model.get_output_embeddings()
    if head is None:
        return ""
    stops = stop_tokens(case.student, "student", load_tokenizer(case.student, "student"))
    tokens = torch.tensor([[*case.prompts[0].tokens, *case.responses[0].tokens]])
    answer = case.model(input_ids=tokens, output_hidden_states=True)
    states, logits = answer.hidden_states[-1][0], answer.logits[0]
    missing = (logits.logsumexp(-1) - logits[:, min(stops)]).mean()
    head.weight[min(stops)] += missing * states.mean(0) / states.mean(0).square().sum()
    case.load(5)
    del case.responses
    return returns_valid_responses(case)


def closes(case: EngineCase) -> str:
    """Check `close` and `for_another_model`: neither keeps weights, and settings are equal."""
    other = case.engine.for_another_model()
    if other is case.engine or other != case.engine or other.policy_version != NO_WEIGHTS:
        return "returns no fresh engine with equal settings from for_another_model. Leave it to RolloutEngine."
    case.engine.close()
    if case.engine.policy_version != NO_WEIGHTS:
        return "keeps its policy_version after close. Call super().close()."
    return ""


CHECKS = (
    takes_weights,
    returns_valid_responses,
    depends_on_prompt_and_seed_only,
    returns_logprobs_of_the_sampled_distribution,
    follows_the_settings_of_rows,
    scores_probes,
    replaces_all_weights,
    ends_at_stop_tokens,
    closes,
)

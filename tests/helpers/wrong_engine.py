"""Rollout engine with faults: the results of a right engine, changed by functions."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fireopd.engines import HFEngine, RolloutEngine
from fireopd.engines.base import NO_WEIGHTS


@dataclass
class WrongEngine(RolloutEngine):
    """Results of a right engine, changed by functions."""

    inner: HFEngine = field(default_factory=HFEngine)
    responses: Callable = lambda engine, responses: responses
    loaded: Callable = lambda weights: weights
    probed: Callable = lambda logprobs: logprobs
    version: Callable = lambda version: version
    seeds: Callable = lambda engine, seeds: seeds
    calls: int = 0

    def setup(self, model, device):
        self.inner.setup(model, device)
        self.policy_version = self.version(NO_WEIGHTS)

    def generate(self, prompts, seeds):
        self.calls += 1
        return self.responses(self, self.inner.generate(prompts, self.seeds(self, seeds)))

    def load_weights(self, weights, policy_version):
        self.inner.load_weights(self.loaded(weights), policy_version)
        self.policy_version = self.version(policy_version)

    def probe(self, tokens):
        return {name: self.probed(values) for name, values in self.inner.probe(tokens).items()}

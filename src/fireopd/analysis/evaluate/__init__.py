"""Evaluation of models on benchmarks: prompts, recorded responses, metrics with confidence intervals."""

__all__: list[str] = []

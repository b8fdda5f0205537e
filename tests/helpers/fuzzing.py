"""Seeded fuzzing: the same examples in every run."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

__all__ = ["FUZZED", "VALUES"]

FUZZED = settings(
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""Settings of a fuzzing test: no time limits, which a busy machine would exceed, and no shrinking."""

SCALARS = st.sampled_from(
    (None, True, False, 0, 1, 7, -1, 48, 10**9, 2**63, 2**70, 10**400, 0.5, -0.5, 1e-7, -0.0, 1e308, -9999.0,
     float("nan"), float("inf"), float("-inf"), "", "1", "3", "a\0b", "\ud800", "stop", "length", "\ufeff")
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=4),
    st.dictionaries(st.sampled_from(["version", "start", "end", "6", "logprob", "role", "content", ""]), SCALARS),
    st.lists(st.lists(SCALARS, max_size=2), max_size=2),
)
"""Values of JSON: extreme numbers, texts that are none, lists and objects."""

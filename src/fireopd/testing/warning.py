"""Warning of the conformance kit about legal but suspicious behavior."""

__all__ = ["ConformanceWarning"]


class ConformanceWarning(UserWarning):
    """A plug-in keeps its contract, but does what is often a mistake."""

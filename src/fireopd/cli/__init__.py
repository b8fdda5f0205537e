"""Command line of fireopd."""

__all__: list[str] = []

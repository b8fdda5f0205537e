"""Commands of the program: one module per command, each with a function `run(arguments)`."""

__all__: list[str] = []

"""Option of `fireopd check` that samples the teachers."""

from collections.abc import Sequence

from fireopd.errors import UserError

__all__ = ["take_sample_option"]

OPTION = "--sample_teachers"


def take_sample_option(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """Return the number of prompts to sample for each teacher, None without the option, and the other arguments.

    Raises:
        UserError: if the value is not a whole number of at least 2, or --gpus plans for other hardware.
    """
    number, others, rest = None, list[str](), list(arguments)
    while rest:
        argument = rest.pop(0)
        key, equals, value = argument.partition("=")
        if key != OPTION:
            others.append(argument)
            continue
        value = value if equals or not rest else rest.pop(0)
        if not value.isdecimal() or int(value) < 2:
            remedy = "give the number of prompts of each teacher, for example 64"
            raise UserError(OPTION, value or None, "not a whole number of at least 2", remedy)
        number = int(value)
    if number is not None and any(argument.partition("=")[0] == "--gpus" for argument in others):
        raise UserError(OPTION, number, "--gpus plans for other hardware, and loads no model", "leave one of them out")
    return number, others

"""`fireopd plugins`: list the installed plug-ins with package, required signals and summary.

Plug-ins that cannot be imported follow with their package and error; other commands skip them.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fireopd.cli.entry_points import broken_plugins, load_plugins
from fireopd.cli.parser import Parser

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Print the table of plug-ins."""
    Parser(prog="fireopd plugins", description=__doc__).parse_args(list(arguments))
    table = Table(show_lines=False)
    for column in ("group", "class", "package", "signals", "summary"):
        table.add_column(column, overflow="fold")
    last = ""
    for plugin in load_plugins():
        if plugin.group != last:
            table.add_section()
        group, last = plugin.group if plugin.group != last else "", plugin.group
        table.add_row(group, plugin.name, plugin.package, plugin.signals, plugin.summary)
    console = Console()
    console.print(table) if console.is_terminal else Console(width=220).print(table)
    for broken in broken_plugins():
        console.print(f"Skipped: {broken.error}", soft_wrap=True, markup=False, highlight=False)

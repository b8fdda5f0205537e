"""Parser of commands without strategies: one message, whole names of options, lines of the description."""

import pytest

from fireopd.cli.command_parser import CommandParser


def make_parser():
    parser = CommandParser("copy", "`fireopd copy FILE`: copy a file.\n\nThe copy has the content of the file.", "more")
    parser.add_argument("file")
    parser.add_argument("--out")
    return parser


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: file"),
        (["a", "--ou=b"], "unrecognized arguments: --ou=b"),
        (["a", "b"], "unrecognized arguments: b"),
    ],
)
def test_an_invalid_argument_is_one_message(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        make_parser().parse_args(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"fireopd: {message}. See fireopd copy --help\n"


def test_the_help_keeps_the_lines_of_the_description(capsys):
    with pytest.raises(SystemExit) as stop:
        make_parser().parse_args(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: fireopd copy ")
    assert "copy a file.\n\nThe copy has the content of the file.\n" in out
    assert out.endswith("more\n")

"""Tables on the terminal, as Markdown and as HTML."""

import io
from dataclasses import replace

from rich.console import Console

from fireopd.analysis.tables import SHOWN, Estimate, Table

TABLE = Table("Title & <b>", ["name", "value"], [["a|b", Estimate(0.5, 0.1)], ["<i>", None], ["c", 1234.5]], "A note.")


def test_a_table_in_three_forms():
    assert "| a\\|b | 0.500 ± 0.100 |" in TABLE.to_markdown()
    assert "| --- | ---: |" in TABLE.to_markdown()
    page = TABLE.to_html()
    assert "<h2>Title &amp; &lt;b&gt;</h2>" in page
    assert '<td class="number" data-value="0.5">0.500 ± 0.100</td>' in page
    assert '<td class="number">-</td>' in page
    assert "<td>&lt;i&gt;</td>" in page
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(TABLE.to_rich(60))
    assert "1234" in console.export_text()


def test_the_terminal_shows_the_first_rows_of_a_long_table_and_says_so():
    long = replace(TABLE, rows=[[f"row {place}", 1.0] for place in range(SHOWN + 3)])
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(long.to_rich(60))
    text = console.export_text()
    assert "3 more rows in the output files" in " ".join(text.split())
    assert f"row {SHOWN - 1}" in text
    assert f"row {SHOWN}" not in text
    assert f"row {SHOWN + 2}" in long.to_markdown()


def test_a_narrow_terminal_gets_several_tables_and_whole_words():
    columns = ["method", "seeds", "final", "accuracy given finish", "training length", "rank correlation", "verdict"]
    rows = [[name, 5, *(Estimate(0.5, 0.1) for _ in range(4)), "no difference"] for name in ("opd", "fire_soft_hard")]
    table = Table("Results", columns, rows, "A note.")
    for width in (50, 80, 200):
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(table.to_rich(width))
        text = console.export_text()
        words = {word for line in text.splitlines() for word in line.replace("┃", " ").replace("│", " ").split()}
        assert words >= {word for column in columns for word in column.split()}
        assert max(map(len, text.splitlines())) <= width
        assert text.count("0.500 ± 0.100") == 8
        assert text.count("A note.") == 1
        assert text.count("fire_soft_hard") == {50: 3, 80: 2, 200: 1}[width]

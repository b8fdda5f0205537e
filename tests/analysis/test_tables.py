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
    console.print(TABLE.to_rich())
    assert "1234" in console.export_text()


def test_the_terminal_shows_the_first_rows_of_a_long_table_and_says_so():
    long = replace(TABLE, rows=[[f"row {place}", 1.0] for place in range(SHOWN + 3)])
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(long.to_rich())
    text = console.export_text()
    assert "3 more rows in the output files" in " ".join(text.split())
    assert f"row {SHOWN - 1}" in text
    assert f"row {SHOWN}" not in text
    assert f"row {SHOWN + 2}" in long.to_markdown()

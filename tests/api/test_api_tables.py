"""Tables as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterator

from planner.tables import WIDTH, Printable, Table


class Report(Printable):
    def contents(self) -> Iterator[Table | str]:
        yield Table("Loads [bold]", ("name", ">share"), [("<gate> [red]", "12 %"), ("yard :smile:", "3 %")])
        yield "a line & " + "x" * 2 * WIDTH


def test_names_are_printed_as_they_are() -> None:
    text = Report().summary()
    for name in ("Loads [bold]", "<gate> [red]", "yard :smile:"):
        assert name in text
    assert "x" * 2 * WIDTH in text.splitlines()[-1]
    assert "\x1b" not in text


def test_html_is_escaped_and_numbers_stand_right() -> None:
    html = Report()._repr_html_()
    assert "&lt;gate&gt; [red]" in html
    assert '<td style="text-align:right">12 %</td>' in html
    assert "<p>a line &amp; x" in html

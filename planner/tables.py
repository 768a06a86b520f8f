"""Tables for people: plain text, rich text on a terminal, HTML in a notebook."""

from __future__ import annotations

import html
import io
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from planner.errors import printable

if TYPE_CHECKING:  # an agent prints no table and starts without rich
    from rich import table as rich_table
    from rich.console import Console

WIDTH: Final = 120
"""Width of a line, in characters, where no terminal determines it."""

NAME: Final = 40
"""Longest name of a tensor or a layer in a table, in characters; exporters make some of hundreds."""

_UNLIMITED: Final = 10_000
"""Wider than any table, in characters."""


@dataclass(frozen=True)
class Table:
    """A table with a title.

    Parameters
    ----------
    columns
        Names of the columns; those of a column that is aligned to the right start with ``>``.
    rows
        Cells of each row, as many as there are columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def print(self, console: Console) -> None:
        """Print the table on a console.

        Names in the first column and numbers are never shortened. Where the console is too narrow for them, the column
        titles are folded, and if that is not enough, lines are longer than the console is wide.
        """
        table = self._rich()
        if _width(table, maximum=True) > console.width:
            for column in table.columns:
                column.header = "\n".join(str(column.header).rsplit(" ", 1))
        if (minimum := _width(table, maximum=False)) > console.width:
            table.padding = (0, 0)
            console.width = max(console.width, minimum)
        console.print(table)

    def html(self) -> str:
        """Return the table as HTML."""
        styles = [' style="text-align:right"' if name.startswith(">") else "" for name in self.columns]
        head = "".join(
            f"<th{style}>{_escape(name.lstrip('>'))}</th>" for name, style in zip(self.columns, styles, strict=True)
        )
        body = "".join(
            f"<tr>{''.join(f'<td{style}>{_escape(cell)}</td>' for cell, style in zip(row, styles, strict=True))}</tr>"
            for row in self.rows
        )
        caption = f"<caption>{_escape(self.title)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _rich(self) -> rich_table.Table:
        from rich.cells import cell_len
        from rich.table import Table as RichTable

        cells = [[printable(str(cell)) for cell in row] for row in self.rows]
        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for index, column in enumerate(self.columns):
            right = column.startswith(">")
            whole = right or index == 0
            table.add_column(
                column.lstrip(">"),
                justify="right" if right else "left",
                no_wrap=whole,
                min_width=max((cell_len(row[index]) for row in cells), default=0) if whole else None,
                overflow="fold",
            )
        for row in cells:
            table.add_row(*row)
        return table


class Printable:
    """Base of objects that show themselves as short tables, in a terminal and in a notebook."""

    @abstractmethod
    def contents(self) -> Iterable[Table | str]:
        """Return the tables and the lines that describe the object, in order."""

    def summary(self) -> str:
        """Return the description as plain text."""
        file = io.StringIO()
        console = make_console(file, width=WIDTH)
        for content in self.contents():
            print_content(content, console)
        return file.getvalue().rstrip("\n")

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return "".join(
            content.html() if isinstance(content, Table) else f"<p>{_escape(content)}</p>"
            for content in self.contents()
        )


def make_console(file: io.TextIOBase | None = None, *, width: int | None = None) -> Console:
    """Return a console that prints text as it is: without markup, also in a notebook."""
    from rich.console import Console

    return Console(file=file, width=width, markup=False, emoji=False, highlight=False, force_jupyter=False)  # type: ignore[arg-type]


def print_content(content: Table | str, console: Console) -> None:
    """Print a table or a line."""
    if isinstance(content, Table):
        content.print(console)
    else:
        console.print(printable(content), soft_wrap=True)


def milliseconds(time_s: float | None) -> str:
    """Return a time as text; a dash where there is none."""
    return "–" if time_s is None else f"{time_s * 1e3:.1f} ms"


def _width(table: rich_table.Table, *, maximum: bool) -> int:
    from rich.measure import Measurement

    unlimited = make_console(width=_UNLIMITED)
    measured = Measurement.get(unlimited, unlimited.options, table)
    return measured.maximum if maximum else measured.minimum


def _escape(value: object) -> str:
    return html.escape(str(value))


def short_name(name: str) -> str:
    """Return a name without its middle if it is long.

    >>> short_name("model_1/conv2d_4/BiasAdd;model_1/conv2d_4/BiasAdd;model_1/conv2d_2/Conv2D1__376:0")
    'model_1/conv2d_4/BiasAdd;m…onv2D1__376:0'
    """
    tail = NAME // 3
    return name if len(name) <= NAME else f"{name[: NAME - tail - 1]}…{name[-tail:]}"

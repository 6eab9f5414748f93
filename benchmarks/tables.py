"""Tables that can be printed and written, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A title, column heads and rows of text; ``note`` stands below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def rich(self) -> RichTable:
        table = RichTable(title=self.title, caption=self.note or None, title_justify="left", caption_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left", no_wrap=i == 0)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cells).replace("<", "&lt;") + " |"  # a profile's <built-in method> is no HTML

        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        lines = [f"**{self.title}**", "", line(self.columns), rule, *map(line, self.rows)]
        return "\n".join(lines + (["", self.note] if self.note else []))


@dataclass(frozen=True)
class Picture:
    """A PNG that stands beside the tables as NAME.png; ``note`` stands below."""

    name: str
    title: str
    png: bytes
    note: str = ""

    def markdown(self, file: str) -> str:
        lines = [f"**{self.title}**", "", f"![{self.title}]({file})"]
        return "\n".join(lines + (["", self.note] if self.note else []))


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits; a dash where there is no number."""
    if value is None:
        return "–"
    if 10**digits <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def percent(fraction: float | None, error: float | None = None) -> str:
    """A fraction of 1 in per cent, with its standard error if there is one."""
    if fraction is None:
        return "–"
    return f"{100 * fraction:.1f}" + ("" if error is None else f" ± {number(100 * error, 1)}")

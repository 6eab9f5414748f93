"""Pages of what was measured, made from benchmarks/results/*.json while the site is built, and the bars beside it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import BENCHMARKS  # noqa: E402
from benchmarks.__main__ import subject  # noqa: E402
from benchmarks.record import headline  # noqa: E402
from benchmarks.tables import Table, number  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
BARS = Path(__file__).with_name("bars.toml")

PICTURE = re.compile(r"^\*\*[^\n]+\*\*\n\n!\[[^\n]*\]\([^\n]*\)(?:\n\n[^\n*!|]+$)?", re.MULTILINE)
"""A picture in a result's .md: its title and note are in no JSON."""

TABLE = re.compile(r"<!-- measured: (\S+) (\d+): (.+) -->")
"""Where a page wants a table: of which result, which of its tables, from 0, and which rows, between semicolons."""

HEAD = """# Benchmarks

What molflow achieves and what it costs, bars first. Every number on these pages is read from
`benchmarks/results/*.json` when the site is built; each result's page says by which machine, commit and seed, and
`python -m benchmarks run NAME --out DIR` measures it again. Molecules that failed are counted in every mean.

## Bars

What was to be reached; a bar that was missed stays in its table.
"""


def on_config(config: MkDocsConfig) -> None:
    """Put the pages into the navigation."""
    section = next(entry for entry in config.nav or [] if isinstance(entry, dict) and "Benchmarks" in entry)
    section["Benchmarks"] = ["benchmarks/index.md", *(f"benchmarks/{path.stem}.md" for path in results())]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add a page for each result, its pictures, and one over all of them."""
    pages = {"index": overview(), **{path.stem: page(path) for path in results()}}
    for name, text in pages.items():
        files.append(File.generated(config, f"benchmarks/{name}.md", content=text))
    for path in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))


def on_page_markdown(text: str, **_: Any) -> str:
    """Put tables where a page wants them."""
    return TABLE.sub(lambda wanted: excerpt(*wanted.groups()), text)


def excerpt(name: str, place: str, wanted: str) -> str:
    """Some rows of a result's table. Raises KeyError where it has no such row."""
    table = tables(RESULTS / f"{name}.json")[int(place)]
    rows = {row[0]: row for row in table.rows}
    return markdown(dataclasses.replace(table, rows=[rows[head] for head in wanted.split("; ")], note=""))


def markdown(table: Table) -> str:
    """A table whose cells are text, whatever is in them: profiles speak of <built-in method linear>."""
    rows = [[cell.replace("<", "&lt;") for cell in row] for row in table.rows]
    return dataclasses.replace(table, rows=rows).markdown()


def results() -> list[Path]:
    """The results that a benchmark of today has tables for, in the benchmarks' order."""
    order = list(BENCHMARKS)
    known = {path: json.loads(path.read_text())["name"] for path in sorted(RESULTS.glob("*.json"))}
    return sorted((path for path, name in known.items() if name in order), key=lambda path: order.index(known[path]))


def page(path: Path) -> str:
    """Of one result: its tables, and its pictures with what its own run wrote below them."""
    record = json.loads(path.read_text())
    title, _, rest = headline(record).partition("\n")
    parts = [title.replace(record["name"], path.stem), subject(BENCHMARKS[record["name"]]), rest.strip(),
             *map(markdown, tables(path)), *PICTURE.findall(path.with_suffix(".md").read_text())]
    return "\n\n".join(parts) + "\n"


def tables(path: Path) -> list[Table]:
    """Of one result, by its benchmark."""
    record = json.loads(path.read_text())
    return importlib.import_module(BENCHMARKS[record["name"]]).tables(record["results"])


def overview() -> str:
    """Bars, and a line for each result."""
    lines = ["## Results", "", "| | | machine | commit | seed |", "|---|---|---|---|---|"]
    for path in results():
        record = json.loads(path.read_text())
        cpu, gpu = record["machine"]["cpu"], record["machine"]["gpu"]
        lines.append(f"| [{path.stem}]({path.stem}.md) | {subject(BENCHMARKS[record['name']])} | {gpu or cpu} | "
                     f"`{record['commit']}` | {record['seed']} |")
    return "\n\n".join([HEAD, *(table.markdown() for table in bars()), "\n".join(lines)]) + "\n"


def bars() -> list[Table]:
    """A table for each group of bars.toml."""
    groups = []
    for group in tomllib.loads(BARS.read_text())["groups"]:
        path = RESULTS / f"{group['result']}.json"
        found = json.loads(path.read_text())["results"] if path.exists() else None
        by = group["result"] if found is None else f"[{group['result']}]({group['result']}.md)"
        groups.append(Table(group["title"], ["", "bar", "measured", "", "by"],
                            [[*row(bar, found), by] for bar in group["bars"]], group.get("note", "")))
    return groups


def row(bar: dict[str, Any], found: dict[str, Any] | None) -> list[str]:
    """What is wanted, what was measured, if it was, and whether that will do."""
    unit, scale = bar.get("unit", ""), bar.get("scale", 1)
    wanted = bar["most"] if "most" in bar else bar["least"]
    if isinstance(wanted, str):
        wanted = scale * at(found, wanted)
    named = [bar["what"], f"{'at most' if 'most' in bar else 'at least'} {number(wanted)} {unit}".rstrip()]
    if found is None:
        return [*named, "–", "not measured yet"]
    value = scale * at(found, bar["measured"])
    reached = value <= wanted if "most" in bar else value >= wanted
    return [*named, f"{number(value)} {unit}".rstrip(), "reached" if reached else "**fell short**"]


def at(found: Any, place: str) -> float:
    """The number at a dotted place. Raises KeyError without one."""
    for key in place.split("."):
        found = found[key]
    return float(found)

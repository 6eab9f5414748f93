"""The site: it is built without a warning, opens without a network, and says what the code and the JSON say."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import molflow
from benchmarks import BENCHMARKS
from benchmarks.published import COLUMNS, FIELD_FACTOR, TARGETS
from molflow.cli import app

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def measured() -> ModuleType:
    """The hook that makes the benchmarks' pages."""
    spec = importlib.util.spec_from_file_location("measured", ROOT / "docs" / "hooks" / "measured.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.read_text())))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loaded = re.findall(r'<(?:link|script|img|iframe|source)\b[^>]*\b(?:href|src)="([^"]*)"', page.read_text())
        assert loaded and not [place for place in loaded if re.match(r"(?:https?:)?//", place)], page


def test_equations_are_mathml(site: Path) -> None:
    page = (site / "how.html").read_text()
    assert page.count("<math") > 25 and "<mfrac>" in page
    assert "\\frac" not in page and "#!math" not in page


def test_every_public_name_is_described(site: Path) -> None:
    page = (site / "reference" / "molflow.html").read_text()
    assert [name for name in molflow.__all__ if f'id="molflow.{name}"' not in page] == ["__version__"]


def test_names_described_in_one_line_have_a_row_each(site: Path) -> None:
    text = text_of(site / "reference" / "training.html")
    assert "rate float learning rates of AdamW" in text and "rate_matrix float learning rates of AdamW" in text
    text = text_of(site / "reference" / "molflow.html")
    for name in ("generator", "guide", "evaluator"):
        assert f"{name} Path | None files of weights" in text


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        yield f"{name} {word}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")


def test_every_command_is_there_with_its_options(site: Path) -> None:
    text = text_of(site / "commands.html")
    there = dict(commands(typer.main.get_command(app), "molflow"))
    assert len(there) > 15
    for name, command in there.items():
        section = text.partition(f"$ {name} ")[2].partition(" $ molflow")[0]
        for parameter in (one for one in command.params if not one.hidden):
            assert parameter.help.replace("`", "").split(".")[0] in section, f"{name}: {parameter.name}"


@pytest.mark.parametrize("path", [path for path in RESULTS if json.loads(path.read_text())["name"] in BENCHMARKS],
                         ids=lambda path: path.stem)
def test_tables_and_pictures_of_a_result_are_those_of_its_json(site: Path, path: Path) -> None:
    record = json.loads(path.read_text())
    page = site / "benchmarks" / f"{path.stem}.html"
    text = text_of(page)
    assert record["commit"] in text and f"seed {record['seed']}" in text
    for table in import_module(BENCHMARKS[record["name"]]).tables(record["results"]):
        assert table.markdown() in path.with_suffix(".md").read_text()
        for row in table.rows:
            assert re.sub(r"\s+", " ", " ".join(cell.replace("`", "") for cell in row)).strip() in text
    for picture in path.parent.glob(f"{path.stem}.*.png"):
        assert f'src="{picture.name}"' in page.read_text()
        assert (page.parent / picture.name).read_bytes() == picture.read_bytes()


def test_bars_are_those_that_were_set(measured: ModuleType, site: Path) -> None:
    first = measured.bars()[0]
    errors = json.loads((ROOT / "benchmarks" / "results" / "qm9-targets.json").read_text())["results"]["properties"]
    for name, (_, bar, found, word, _) in zip(COLUMNS, first.rows, strict=True):
        wanted = TARGETS["molflow's bar"][name]
        value = FIELD_FACTOR[name] * errors[name]["rows"]["molflow"]["mae"]
        assert float(bar.split()[2]) == wanted
        assert float(found.split()[0]) == pytest.approx(value, rel=0.005)
        assert (word == "reached") == (value <= wanted)
    shown = text_of(site / "benchmarks" / "index.html")
    for table in measured.bars():
        assert all(f"{row[0]} {row[1]} {row[2]} {row[3].strip('*')}" in shown for row in table.rows)


@pytest.mark.parametrize(("bar", "found", "words"), [
    ({"most": 2, "measured": "a.b"}, 2.0, ["at most 2", "2", "reached"]),
    ({"most": 2, "measured": "a.b"}, 2.01, ["at most 2", "2.01", "**fell short**"]),
    ({"least": 98, "measured": "a.b", "scale": 100, "unit": "%"}, 0.97, ["at least 98 %", "97 %", "**fell short**"]),
    ({"least": 98, "measured": "a.b", "scale": 100, "unit": "%"}, 0.98, ["at least 98 %", "98 %", "reached"]),
    ({"least": "c", "measured": "a.b", "scale": 1000}, 0.3, ["at least 200", "300", "reached"]),
    ({"most": 2, "measured": "a.b"}, None, ["at most 2", "–", "not measured yet"]),
])
def test_a_bar_that_is_missed_says_so(measured: ModuleType, bar: dict[str, Any], found: float | None,
                                      words: list[str]) -> None:
    results = None if found is None else {"a": {"b": found}, "c": 0.2}
    assert measured.row({"what": "it", **bar}, results) == ["it", *words]


def test_a_table_that_a_page_wants_and_that_is_not_there_stops_the_build(measured: ModuleType) -> None:
    wanted = "<!-- measured: qm9-targets 0: {} -->"
    assert "| molflow | 0.1" in measured.on_page_markdown(wanted.format("molflow"))
    with pytest.raises(KeyError, match="no such row"):
        measured.on_page_markdown(wanted.format("molflow; no such row"))


def test_search_works_in_a_page_that_is_opened_from_a_folder(site: Path, browser: Any) -> None:
    tab = browser.new_page()
    asked, faults = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto((site / "index.html").as_uri())
    tab.click(".md-search input")
    tab.keyboard.type("Newton")
    tab.wait_for_selector("a.md-search-result__link[href*='how.html']", timeout=120_000)
    tab.close()
    assert faults == [] and all(place.startswith((site.as_uri(), "about:")) for place in asked)

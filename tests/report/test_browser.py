"""The page in a real browser, headless: what a chemist would click, and what a hostile file would try."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from molflow import write_report
from molflow.molecules.convert import Molecule
from molflow.molecules.io import read_sdf

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
TARGETS = {"gap": 5.0, "mu": 1.5}


class Page:
    """A page that is open, with all that it asked of the network and all that went wrong in it."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self.tab = browser.new_context(**{"viewport": {"width": 1000, "height": 700}, **context}).new_page()
        self.tab.set_default_timeout(120_000)
        self.requests: list[str] = []
        self.refused: dict[str, str] = {}
        self.faults: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("requestfailed", lambda request: self.refused.update({request.url: request.failure}))
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.tab.on("console", lambda line: line.type in ("error", "warning") and self.faults.append(line.text))
        self.tab.goto(file.as_uri())
        self.tab.wait_for_selector("#viewer canvas")

    def scene(self) -> tuple[list[str], np.ndarray, set[tuple[int, int, int]]]:
        """Elements, positions and bonds that the 3D viewer holds."""
        atoms = self.tab.evaluate("document.getElementById('viewer').viewer.getModel().selectedAtoms({}).map("
                                  "a => [a.elem, [a.x, a.y, a.z], a.bonds, a.bondOrder])")
        bonds = {(i, j, order) for i, (*_, to, orders) in enumerate(atoms)
                 for j, order in zip(to, orders, strict=True) if i < j}
        return [atom[0] for atom in atoms], np.array([atom[1] for atom in atoms]).reshape(-1, 3), bonds

    def order(self) -> list[int]:
        """Numbers, from 0, of the rows that can be seen, from above."""
        return [int(row.get_attribute("data-molecule")) for row in self.tab.locator("#molecules tbody tr").all()
                if row.is_visible()]

    def shows(self, molecule: Molecule) -> None:
        elements, positions, bonds = self.scene()
        assert elements == molecule.to_ase().get_chemical_symbols()
        assert_allclose(positions, molecule.positions, atol=1e-4)
        first, second = np.triu(molecule.bonds, 1).nonzero()
        assert bonds == set(zip(first, second, molecule.bonds[first, second], strict=True))

    def close(self) -> None:
        self.tab.context.close()


@pytest.fixture(scope="module")
def run(designed):
    made = designed(n=8, targets=TARGETS, broken=4)
    for i, molecule in enumerate(made.molecules):
        molecule.properties["evaluator_gap"] = [9.0, 3.0, np.nan, np.nan, 5.5, 4.75, 5.0, 7.0][i]
    return made


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    return run.save(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def page(browser, folder) -> Iterator[Page]:
    opened = Page(browser, folder / "report.html")
    yield opened
    assert opened.faults == [] and opened.requests == [(folder / "report.html").as_uri()]
    opened.close()


def test_it_opens_with_the_first_molecule_and_asks_the_network_for_nothing(page, run):
    assert "8 molecules designed for HOMO–LUMO gap 5 eV, dipole moment μ 1.5 D" in page.tab.inner_text("h1")
    assert "4/8" in page.tab.inner_text(".outcome") and "a warning" in page.tab.inner_text(".warning")
    assert page.tab.inner_text("#caption").startswith("Molecule 1 ")
    assert page.order() == list(range(8))
    page.shows(run.molecules[0])


def test_a_click_shows_that_molecule_with_the_bonds_that_were_generated(page, run):
    for i in (6, 1, 0):  # whole; with a bond too many; without bonds
        page.tab.locator(f"tr[data-molecule='{i}']").click()
        page.shows(run.molecules[i])
        assert page.tab.inner_text("#caption").startswith(f"Molecule {i + 1} ")
        assert page.tab.locator("tr[aria-selected=true]").get_attribute("data-molecule") == str(i)
    page.tab.locator("tr[data-molecule='2']").click()  # positions that are not finite
    assert page.scene()[0] == [] and "no structure" in page.tab.inner_text("#caption")
    page.tab.locator("#molecules summary").click()
    assert "positions are not finite" in page.tab.inner_text("#fields")
    page.tab.locator("[data-dot='5']").first.click()
    page.shows(run.molecules[5])


def test_keys_walk_through_the_table(page, run):
    page.tab.locator("tr[data-molecule='4']").focus()
    page.tab.keyboard.press("ArrowDown")
    page.shows(run.molecules[5])
    page.tab.keyboard.press("ArrowUp")
    page.tab.keyboard.press("ArrowUp")
    assert page.tab.locator("tr[aria-selected=true]").get_attribute("data-molecule") == "3"


def test_dragging_turns_the_molecule(page):
    canvas = page.tab.locator("#viewer")

    def view() -> tuple[list[float], bytes]:
        return page.tab.evaluate("document.getElementById('viewer').viewer.getView()"), canvas.screenshot()

    page.tab.locator("tr[data-molecule='7']").click()
    canvas.scroll_into_view_if_needed()
    before, picture = view()
    box = canvas.bounding_box()
    page.tab.mouse.move(box["x"] + 100, box["y"] + 150)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + 220, box["y"] + 190, steps=5)
    page.tab.mouse.up()
    after, turned = view()
    assert not np.allclose(before[4:], after[4:], atol=0.05)  # the quaternion
    assert picture != turned


def test_heads_sort_and_what_has_no_value_comes_last(page):
    head = page.tab.get_by_role("button", name="gap evaluator")
    head.click()
    assert page.order() == [1, 5, 6, 4, 7, 0, 2, 3]
    head.click()
    assert page.order() == [0, 7, 4, 6, 5, 1, 2, 3]
    page.tab.get_by_role("button", name="#").click()
    assert page.order() == list(range(8))
    page.tab.get_by_role("button", name="gap miss, evaluator").click()
    assert page.order() == [6, 5, 4, 1, 7, 0, 2, 3]


def test_search_and_valid_only_hide_rows(page, run):
    page.tab.check("#valid-only")
    assert page.order() == [4, 5, 6, 7] and page.tab.inner_text("#count") == "4 of 8"
    wanted = run.molecules[6].smiles.lower()
    page.tab.fill("#find", wanted)
    assert page.order() == [i for i in range(4, 8) if wanted in run.molecules[i].smiles.lower()]
    page.tab.uncheck("#valid-only")
    page.tab.fill("#find", "not finite")
    assert page.order() == [2]
    page.tab.fill("#find", "")
    assert page.order() == list(range(8))


def test_the_animation_runs_from_noise_to_the_molecule(page, run):
    slider = page.tab.locator("#time")
    slider.fill("0")
    page.shows(run.trajectory[0])
    assert page.tab.inner_text("#now") == "t = 0.00"
    page.tab.locator("#play").click()
    sync_api.expect(page.tab.locator("#now")).to_have_text("t = 1.00")
    page.shows(run.molecules[7])
    sync_api.expect(page.tab.locator("#play")).to_have_text("▶ Noise to molecule 8")
    page.tab.locator("#play").click()
    page.tab.locator("tr[data-molecule='4']").click()  # leaves the animation
    page.shows(run.molecules[4])
    page.tab.wait_for_timeout(400)
    page.shows(run.molecules[4])


def test_the_download_is_the_file(page, folder):
    with page.tab.expect_download() as download:
        page.tab.locator("#sdf").click()
    assert download.value.suggested_filename == "molecules.sdf"
    assert Path(download.value.path()).read_bytes() == (folder / "molecules.sdf").read_bytes()


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (400, "dark"), (1280, "dark")])
def test_nothing_sticks_out_and_words_can_be_read(browser, folder, width, scheme):
    page = Page(browser, folder / "report.html", viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (re.findall(r"\d+", page.tab.evaluate(f"getComputedStyle(document.body).{name}"))
                  for name in ("color", "backgroundColor"))
    assert (int(ink[0]) > int(paper[0])) == (scheme == "dark") and abs(int(ink[0]) - int(paper[0])) > 150
    bond = page.tab.evaluate("getComputedStyle(document.querySelector('path[style*=currentColor]')).stroke")
    assert bond == page.tab.evaluate("getComputedStyle(document.body).color")
    page.close()


# ---- text that came from a file --------------------------------------------------------------------------------------

HOSTILE = ["<img src=x onerror=pwn()>", "</script><script>pwn()</script>", "<!--<script>",
           "\"onmouseover=\"pwn()\" x=\"", "'onclick='pwn()", "</style></title><svg onload=pwn()>",
           "javascript:pwn()", "&lt;b&gt;", "{{ 7 * 7 }}", "\u2028pwn()\u2029", "]]>", "${pwn()}",
           "https://example.org/a.png", "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
           "\u202egnp.exe\u2066\u2069", "long " * 2000]


@pytest.fixture
def hostile(run, folder, tmp_path) -> Path:
    """The same run with such text in every place of every file that holds text."""
    place = shutil.copytree(folder, tmp_path / "run")
    record = json.loads((place / "run.json").read_text())
    for text in HOSTILE:
        record["settings"]["budget"][text] = record["machine"][text] = text
        record["settings"]["targets"][text] = 1.0
    record["warnings"] = HOSTILE
    record["time"] = record["molflow"] = record["commit"] = record["settings"]["device"] = "".join(HOSTILE)
    record["settings"]["weights"]["guide"] = {"file": "".join(HOSTILE), "sha256": HOSTILE[1]}
    record["settings"]["weights"][HOSTILE[0]] = {"file": HOSTILE[1], "sha256": HOSTILE[1]}
    (place / "run.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")

    with (place / "results.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    for text in HOSTILE:
        names += [text, f"xtb_{text}", f"evaluator_{text}"]
        rows = [[*row, text, text, "1.5"] for row in rows]
    for row, text in zip(rows, HOSTILE, strict=False):
        for name in ("smiles", "formula", "fault"):
            row[names.index(name)] = text
    names += ["xtb_verdict", "xtb_reason"]
    rows = [[*row, text, text] for row, text in zip(rows, HOSTILE, strict=False)]
    with (place / "results.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])

    records = (place / "molecules.sdf").read_text().split("$$$$\n")
    for i, text in enumerate(HOSTILE[:8]):
        rest = records[i].split("\n", 1)[1]
        fields = "".join(f"> <field {k} {text.replace('>', '')}>\n{text}\n\n" for k, text in enumerate(HOSTILE))
        records[i] = f"{text}\n{rest}{fields}"
    (place / "molecules.sdf").write_text("$$$$\n".join(records), encoding="utf-8")
    return place


def test_hostile_text_stays_text(browser, run, hostile):
    """With the page's Content Security Policy switched off: escaping alone has to hold."""
    page = Page(browser, write_report(hostile, overwrite=True), bypass_csp=True)
    page.tab.locator("#molecules summary").click()
    for i in (0, 1, 4, 7):
        page.tab.locator(f"tr[data-molecule='{i}'] .words").click()
        assert HOSTILE[i].split("<")[0] in page.tab.inner_text("#caption")
        fields = page.tab.evaluate("[...document.querySelectorAll('#fields dd')].map(dd => dd.textContent)")
        assert set(HOSTILE) <= set(fields)
    page.shows(run.molecules[7])
    assert [warning.removeprefix("Warning: ") for warning in
            page.tab.evaluate("[...document.querySelectorAll('.warning')].map(p => p.textContent)")] == HOSTILE
    assert page.tab.locator("script").count() == 3 and page.tab.locator("img").count() == 1
    assert page.tab.evaluate("document.querySelectorAll('iframe, object, embed, form, base, link').length") == 0
    assert page.tab.evaluate("[...document.querySelectorAll('*')].filter(e => [...e.attributes].some("
                             "a => /^on/i.test(a.name))).length") == 0
    assert page.tab.evaluate("typeof pwn") == "undefined"
    assert page.faults == [] and len(page.requests) == 1
    page.close()


def test_a_script_that_got_in_all_the_same_would_not_run(browser, folder, tmp_path):
    text = (folder / "report.html").read_text(encoding="utf-8")
    evil = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><img src='https://example.org/a.png'>"
    (tmp_path / "page.html").write_text(text.replace("</h1>", f"</h1>{evil}"), encoding="utf-8")
    page = Page(browser, tmp_path / "page.html")
    assert page.tab.evaluate("window.ran") is None
    assert page.refused == {(tmp_path / "x").as_uri(): "csp", "https://example.org/a.png": "csp"}
    assert sum("Content Security Policy" in fault for fault in page.faults) >= 2
    page.close()


def test_all_of_it_can_be_read_from_the_sdf_that_was_hostile(hostile):
    """What the test above is about did arrive in the page's data, and was no matter of files that cannot be read."""
    molecules, skipped = read_sdf(hostile / "molecules.sdf")
    assert len(molecules) == 7 and len(skipped) == 1
    assert {str(value) for value in molecules[0].properties.values()} >= {HOSTILE[0], HOSTILE[1]}

"""The page of a run of many molecules: how large it is, and how soon after opening it can be used."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.tables import Table, number
from molflow.commands.console import live
from molflow.designer import Budget, design
from molflow.nn.weights import SHIPPED
from molflow.report import write_report

OPENINGS = 5
"""In one browser, which for the first of them has just been started."""

TARGETS = {"gap": 6.0, "mu": 1.5}
SOFTWARE_GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""For machines without a screen."""

BARS = {"size": 15.0, "seconds": 2.0}
"""MB, and seconds until a click is answered."""


def run(*, n: int = 64, seed: int = 0, weights: Path = SHIPPED) -> dict[str, Any]:
    """A run of ``n`` molecules with the smallest budget, verified by GFN2-xTB."""
    files = {role: weights / f"{role}.safetensors" for role in ("generator", "guide", "evaluator")}
    with live() as tell:
        made = design(TARGETS, n, seed, device="cpu", budget=Budget(1, 0), verify="xtb", progress=tell, **files)
    with TemporaryDirectory() as scratch:
        folder, page = made.save(Path(scratch, "run")), Path(scratch, "page.html")
        begun = time.process_time()
        write_report(folder, page)
        written = time.process_time() - begun
        return {"megabytes": page.stat().st_size / 1e6, "written_seconds": written,
                "load": os.getloadavg()[0], **opened(page)}


def opened(page: Path) -> dict[str, Any]:
    """Seconds until a click on a row is answered, and until the molecule stands there in 3D.

    By the clock; on the processor, all of the browser's processes together, whatever they are busy with; and of that
    what software GL takes, which a graphics card would do.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return {"missing": "playwright"}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        return {"missing": "Chromium"}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=SOFTWARE_GL)
        version, openings = browser.version, [_opening(browser, page) for _ in range(OPENINGS)]
        browser.close()
    return {"chromium": version, "openings": openings}


def _opening(browser: Any, page: Path) -> dict[str, list[float]]:
    from playwright.sync_api import expect

    tab, processes = browser.new_page(), browser.new_browser_cdp_session()
    tab.set_default_timeout(120_000)

    def clocks() -> np.ndarray:
        told = processes.send("SystemInfo.getProcessInfo")["processInfo"]
        graphics = sum(process["cpuTime"] for process in told if process["type"] == "GPU")
        return np.array([time.perf_counter(), sum(process["cpuTime"] for process in told), graphics])

    begun = clocks()
    tab.goto(page.as_uri(), wait_until="commit")
    tab.locator("tr[data-molecule='1']").click()
    expect(tab.locator("#caption")).to_contain_text("Molecule 2", timeout=120_000)
    clicked = clocks() - begun
    tab.wait_for_selector("#viewer canvas")
    drawn = clocks() - begun
    tab.close()
    return {"clicked": clicked.tolist(), "drawn": drawn.tolist()}


def tables(results: dict[str, Any]) -> list[Table]:
    rows = [["size, MB", number(BARS["size"]), number(results["megabytes"])],
            ["written in, processor seconds", "–", number(results["written_seconds"])]]
    if missing := results.get("missing"):
        note = f"Not opened: there is no {missing} here."
    else:
        rows += [[f"{what}, s, {by}", bar, " ".join(number(each[key][i]) for each in results["openings"])]
                 for what, bar, key in (("answers a click", number(BARS["seconds"]), "clicked"),
                                        ("the molecule in 3D", "–", "drawn"))
                 for i, by in enumerate(("clock", "processor", "of it software GL"))]
        note = (f"After opening in headless Chromium {results['chromium']} with software GL, {OPENINGS} times; "
                f"{results['load']:.1f} processes wanted to run. With more of them than cores the clock says little. "
                "The processor's seconds are those of all of the browser's processes.")
    return [Table("Page of a run", ["", "bar", ""], rows, note)]

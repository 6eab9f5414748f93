"""What the page of a run says, as plain data: facts, table, charts and scenes. How it looks is the template's."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from matplotlib.ticker import MaxNLocator

from molflow.molecules.convert import Molecule
from molflow.nn.weights import ROLES, shipped
from molflow.oracles.record import UNITS as OF_LEVELS
from molflow.report.drawing import svg
from molflow.report.figures import JUDGES, NAMES, Fields, Reading, column, mean, misses, number, readings, unit
from molflow.report.reading import SavedRun, goals

_CALCULATED = re.compile(r"(xtb|dft)_(.+?)(?: \[(.+)\])?")  # a field of `molflow verify`: method, what, unit
_YES_NO: dict[float | str, str] = {1.0: "yes", 0.0: "no"}
_CONDITIONS = {"formula": "formula", "fragment": "containing", "lead": "like", "similarity": "similarity at least"}
_IN_WORDS = ("verdict", "reason", "method", "time")  # its fields that are no columns


class Column(NamedTuple):
    """A column of the table of molecules: its heading and the unit below it."""

    title: str
    unit: str


class Cell(NamedTuple):
    """What a molecule has in a column: a number (NaN if none) to be sorted by, the text that is read."""

    value: float
    text: str


class Row(NamedTuple):
    """A molecule in that table: its drawing (None if there is none), words, and a cell for each column."""

    drawing: str | None
    smiles: str
    formula: str
    valid: bool
    fault: str
    verdicts: list[str]
    cells: list[Cell]


def asked(run: SavedRun) -> str:
    """The targets, and what else was asked for, in words."""
    settings = run.record["settings"]
    conditions = [f"{what} {settings[key]}" for key, what in _CONDITIONS.items() if settings.get(key) is not None]
    targets = [f"{NAMES.get(name, name)} {goal} {unit(name, run.units)}".strip() for name, goal in run.targets.items()]
    return ", ".join(targets + conditions)


def command(settings: dict[str, Any]) -> str:
    """What to type to repeat the run. Weights other than those shipped here are named."""
    model = settings.get("model", "qm9")
    words = ["molflow", "design", *([] if model == "qm9" else ["--model", model])]
    for name, wanted in goals(settings["targets"]).items():
        words += ["--target", wanted.of(name)]
    words += ["-n", settings["n"], "--seed", settings["seed"]]
    words += [part for key in ("lookups", "draws", "generations", "gradients") if key in settings["budget"] for part in
              (f"--{key}", settings["budget"][key])]
    if settings.get("atoms") is not None:
        words += ["--atoms", settings["atoms"]]
    if settings.get("formula") is not None:
        words += ["--formula", settings["formula"]]
    if settings.get("fragment") is not None:
        joined = settings["fragment"].count(".")
        words += ["--fragment", *([f"FRAGMENT{i}.sdf" for i in range(1, joined + 2)] if joined else ["FRAGMENT.sdf"])]
    if settings.get("lead") is not None:
        words += ["--from", "LEAD.sdf", "--similarity", settings["similarity"]]
    words += ["--device", settings["device"].partition(":")[0]]
    if settings.get("verify") is not None:
        words += ["--verify", settings["verify"]]
    for role, weights in settings["weights"].items():
        known = shipped(model, role) if role in ROLES else None  # a name out of a file is not to become a path
        if known is None or not known.is_file() or hashlib.sha256(known.read_bytes()).hexdigest() != weights["sha256"]:
            words += [f"--{role}", weights["file"]]
    return shlex.join([*map(str, words), "--out", "DIR"])


def circumstances(run: SavedRun) -> list[tuple[str, str]]:
    """How the run was made, as pairs of a heading and a value."""
    settings = run.record["settings"]
    weights = [(f"weights of the {role}", f"{file['file']}, sha256 {file['sha256']}")
               for role, file in settings["weights"].items()]
    pairs = [("molecules", settings["n"]), ("seed", settings["seed"]), ("atoms", settings.get("atoms")),
             *((what, settings.get(key)) for key, what in _CONDITIONS.items()),
             *((f"function of {name}", function) for name, function in run.own.items()),
             *((str(key), value) for key, value in settings["budget"].items()), ("device", settings["device"]),
             ("time", f"{settings['seconds']:.1f} s"), *weights, ("finished", run.record["time"]),
             ("molflow", run.record["molflow"]), ("commit", run.record.get("commit")),
             *((str(key), value) for key, value in run.record["machine"].items())]
    return [(key.replace("_gb", " / GB"), str(value)) for key, value in pairs if value is not None]


def is_valid(fields: Fields) -> bool:
    """As the run has judged it."""
    return number(fields.get("valid")) == 1


def table(run: SavedRun) -> tuple[list[Column], list[Row]]:
    """Columns and rows: of each target what every judge says and how far the evaluator is off, then what else
    quantum chemistry has found."""
    columns: list[Column] = []
    values: list[Sequence[float | str]] = []
    answers: set[int] = set()  # columns of 1 for yes and 0 for no
    for name, of_name in groupby(readings(run.fields, run.targets, run.own), lambda reading: reading.name):
        for reading in of_name:
            columns.append(Column(f"{name} {reading.by}", unit(name, run.units)))
            values.append(reading.values.tolist())
        if not run.targets[name].is_extreme:
            columns.append(Column(f"{name} miss, {'function' if name in run.own else 'evaluator'}",
                                  unit(name, run.units)))
            values.append(misses(column(run.fields, f"evaluator_{name}"), run.targets[name]).tolist())
    for key in dict.fromkeys(key for fields in run.fields for key in fields):
        if (match := _CALCULATED.fullmatch(key)) and match[2] not in (*OF_LEVELS, *_IN_WORDS):
            columns.append(Column(f"{match[1]} {match[2].replace('_', ' ')}", match[3] or ""))
            values.append([fields.get(key, "") for fields in run.fields])
            if match[2] == "keeps_bonds":
                answers.add(len(values) - 1)
    rows = []
    for i, (fields, molecule) in enumerate(zip(run.fields, run.molecules, strict=True)):
        smiles, formula, fault = (str(fields.get(key, "")) for key in ("smiles", "formula", "fault"))
        verdicts = [": ".join(filter(None, (JUDGES[method], str(fields[f"{method}_verdict"]),
                                            str(fields.get(f"{method}_reason", "")))))
                    for method in ("xtb", "dft") if f"{method}_verdict" in fields]
        rows.append(Row(svg(molecule) if molecule else None, smiles, formula, is_valid(fields), fault, verdicts,
                        [Cell(number(of_all[i]), (_YES_NO.get if j in answers else shown)(of_all[i]) or "")
                         for j, of_all in enumerate(values)]))
    return columns, rows


def shown(value: float | str) -> str:
    """A field for people: numbers to three decimals, whole ones without, nothing for NaN."""
    if isinstance(value, str):
        return value
    if not np.isfinite(value):
        return ""
    return f"{value:.0f}" if value == int(value) and abs(value) >= 10 else f"{value:.3f}"


def charts(run: SavedRun) -> list[dict[str, Any]]:
    """For each target a scale with a lane for each judge and a dot for each molecule, places in per cent of the width.

    What is said of broken molecules may lie anywhere: it does not stretch the scale, and is drawn at the edge.
    """
    valid = np.array([is_valid(fields) for fields in run.fields])
    return [_chart(name, list(of_name), valid, unit(name, run.units)) for name, of_name in
            groupby(readings(run.fields, run.targets, run.own), lambda reading: reading.name)]


OFF_SCALE = 1e100
"""A value that no scale can hold beside others; a file may say anything."""


def _chart(name: str, lanes: Sequence[Reading], valid: np.ndarray, unit: str) -> dict[str, Any]:
    goal = lanes[0].goal
    told = np.concatenate([lane.values[valid & np.isfinite(lane.values)] for lane in lanes])
    told = np.append(told, [goal.low, goal.high])
    told = told[np.abs(told) < OFF_SCALE]
    low, high = (told.min(), told.max()) if len(told) else (0.0, 1.0)
    low, high = (edge + sign * max(0.06 * (high - low), 0.01) for edge, sign in ((low, -1), (high, 1)))

    def place(value: float) -> float:
        return round(float(np.clip(100 * (value - low) / (high - low), 0, 100)), 2)

    ticks = [tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low < tick < high]
    return {"title": NAMES.get(name, name), "unit": unit, "target": str(goal),
            "wanted": (place(goal.low), place(goal.high)),
            "ticks": [(place(tick), f"{tick:.6g}") for tick in ticks],
            "lanes": [{"judge": lane.by,
                       "dots": [(i, place(value), f"{value:.3f}", bool(valid[i]))
                                for i, value in enumerate(lane.values) if np.isfinite(value)]} for lane in lanes]}


def scene(molecule: Molecule | None) -> dict[str, list]:
    """Atoms [symbol, x, y, z] in Å and bonds [i, j, order] as generated; none where there is nothing to be seen."""
    if molecule is None or not np.isfinite(molecule.positions).all():
        return {"atoms": [], "bonds": []}
    first, second = np.triu(molecule.bonds, 1).nonzero()
    return {"atoms": [[chemical_symbols[element], *place] for element, place in
                      zip(molecule.numbers, molecule.positions.round(4).tolist(), strict=True)],
            "bonds": np.stack([first, second, molecule.bonds[first, second]], 1).tolist()}


def outcome(run: SavedRun) -> list[tuple[str, str]]:
    """The figures at the top, as pairs of a number and what it counts."""
    n = len(run.fields)
    valid = [str(fields.get("smiles", "")) for fields in run.fields if is_valid(fields)]
    spent = column(run.fields, "nfe")
    pairs = [(f"{len(valid)}/{n}", "valid"), (f"{len(set(valid))}/{n}", "unique")]
    for method in ("xtb", "dft"):
        if words := [fields[key] for fields in run.fields if (key := f"{method}_verdict") in fields]:
            judge = JUDGES[method]
            pairs.append((f"{words.count('agrees')}/{n}", f"agree with the target within the error of {judge}"))
    for reading in readings(run.fields, run.targets, run.own):
        if reading.judge == "evaluator":
            what, values = ("", reading.known) if reading.goal.is_extreme else ("miss of the ", reading.misses)
            said = f"{mean(values)} {unit(reading.name, run.units)}" if len(values) else mean(values)
            pairs.append((said, f"mean {what}{NAMES.get(reading.name, reading.name)}, by "
                                + ("its function" if reading.exact else "the evaluator")))
    if np.isfinite(spent).any():
        pairs.append((f"{np.nanmean(spent):.0f}", "evaluations of the flow per molecule"))
    return [*pairs, (f"{run.record['settings']['seconds']:.0f} s", "for all")]

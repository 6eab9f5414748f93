"""The table printed at the end of a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from molflow.molecules.similarity import diversity
from molflow.report.figures import JUDGES, column, mean, readings, unit

if TYPE_CHECKING:
    from rich.console import Group

    from molflow.designer import DesignRun


def summary(run: DesignRun) -> Group:
    """Target, achieved, misses, and quantum chemistry's verdicts if there are any.

    Means include broken molecules that have a value; unique counts SMILES of valid ones.
    """
    from rich.console import Group
    from rich.table import Table

    n, fields = len(run.molecules), [molecule.properties for molecule in run.molecules]
    by = {(reading.judge, reading.name): reading
          for reading in readings(fields, run.targets, run.settings.get("properties", {}))}
    oracles = [judge for judge in JUDGES if judge not in ("guide", "evaluator") and any(judge == who for who, _ in by)]
    starred = {reading.judge for reading in by.values() if reading.rescaled}
    table = Table("property", "target", "achieved\nby evaluator",
                  *(f"mean miss\nby {JUDGES[judge]}{'*' * (judge in starred)}"
                    for judge in ("evaluator", "guide", *oracles)))
    for name, goal in run.targets.items():
        misses = ("" if goal.is_extreme or (judge, name) not in by else mean(by[judge, name].misses) for judge in
                  ("evaluator", "guide", *oracles))
        table.add_row(name, f"{goal} {unit(name, run.units)}".strip(), by["evaluator", name].achieved, *misses)
    unread = n - min(len(by["evaluator", name].known) for name in run.targets)
    valid = [str(molecule.smiles) for molecule in run.molecules if molecule.is_valid]
    notes = [f"valid {len(valid)}/{n}, unique {len(set(valid))}/{n}, "
             f"diversity {diversity(set(valid)):.2f}, "
             f"{column(fields, 'nfe').mean():.0f} NFE a molecule, {run.settings['seconds']:.0f} s"]
    if unread:
        notes.append(f"{unread} too broken to have values: not in the means")
    if starred:
        notes.append("*put on B3LYP's scale by a straight line fitted on QM9")
    if exact := [name for (_, name), reading in by.items() if reading.exact]:
        notes.append(f"{', '.join(exact)}: by the function given, not by the evaluator")
    if run.verdicts:
        words = Counter(verdict.word for verdict in run.verdicts)
        notes.append(f"{run.verdicts[0].values.method}: " + ", ".join(f"{count} {word}" for word, count in
                                                                       words.most_common()))
    return Group(table, *notes)

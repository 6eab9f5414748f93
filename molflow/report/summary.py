"""The table printed at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from molflow.report.figures import column, mean, readings, unit

if TYPE_CHECKING:
    from rich.console import Group

    from molflow.designer import DesignRun


def summary(run: DesignRun) -> Group:
    """Target, achieved, misses. Means include broken molecules; unique counts SMILES of valid ones."""
    from rich.console import Group
    from rich.table import Table

    n, fields = len(run.molecules), [molecule.properties for molecule in run.molecules]
    table = Table("property", "target", "achieved\nby evaluator", "mean miss\nby evaluator", "mean miss\nby guide")
    by = {(reading.judge, reading.name): reading for reading in readings(fields, run.targets)}
    for name, target in run.targets.items():
        judged, guided = by["evaluator", name], by["guide", name]
        table.add_row(name, f"{target:.3f} {unit(name)}", judged.achieved, mean(judged.misses), mean(guided.misses))
    unread = n - min(len(by["evaluator", name].known) for name in run.targets)
    valid = [molecule.smiles for molecule in run.molecules if molecule.is_valid]
    notes = [f"valid {len(valid)}/{n}, unique {len(set(valid))}/{n}, "
             f"{column(fields, 'nfe').mean():.0f} NFE a molecule, {run.settings['seconds']:.0f} s"]
    if unread:
        notes.append(f"{unread} too broken to have values: not in the means")
    return Group(table, *notes)

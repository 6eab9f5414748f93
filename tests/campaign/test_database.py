"""The database, of either kind: what is stored comes back, once, and only to the campaign it belongs to."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ase.db
import numpy as np
import pytest

from molflow.campaign import lock, plan
from molflow.campaign.database import Database, DatabaseError, OtherCampaign
from molflow.campaign.spec import Spec
from molflow.campaign.work import Result
from molflow.molecules.convert import Molecule

SPEC = {"name": "small", "targets": [{"gap": 5.0}], "molecules": 4, "batch": 2}


@pytest.fixture
def spec(database: str) -> Spec:
    return Spec.read({**SPEC, "database": database})


@contextmanager
def designed(spec: Spec, qm9: list[Molecule]) -> Iterator[Database]:
    """With its first batch stored."""
    with Database.claimed(spec) as database:
        database.add(plan.undesigned(spec, [])[0], results(qm9))
        yield database


def results(qm9: list[Molecule]) -> list[Result]:
    return [Result(molecule, {"smiles": molecule.smiles or "", "status": "valid", "target_gap": 5.0,
                              "evaluator_gap": 4.5 + number, "evaluator_mu": 0.5}) for number, molecule in
            enumerate(qm9[20:22])]


def test_molecules_come_back_as_they_were(spec: Spec, qm9: list[Molecule]) -> None:
    with designed(spec, qm9) as database:
        records = database.records()
        assert [record.place for record in records] == [(1, 1), (1, 2)]
        assert [record.values["key"] for record in records] == ["small/1/1", "small/1/2"]
        for record, molecule in zip(records, qm9[20:22], strict=True):
            back = database.molecule(record)
            for part in ("positions", "numbers", "charges", "bonds"):
                np.testing.assert_array_equal(getattr(back, part), getattr(molecule, part))
            assert back.properties["target_gap"] == 5.0


def test_a_later_stage_replaces_the_geometry_and_the_trusted_values(spec: Spec, qm9: list[Molecule]) -> None:
    with designed(spec, qm9) as database:
        first, second = database.records()
        moved = replace(qm9[20], positions=qm9[20].positions + 0.1)
        database.change(first, "dft", Result(moved, {"dft_gap": 6.5, "dft_verdict": "agrees", "status": "agrees",
                                                     "reason": "why"}))
        first, same = database.records()
        assert same.values == second.values and same.id == second.id
        assert first.values["gap"] == 6.5 and first.values["mu"] == 0.5 and first.values["stage"] == "dft"
        np.testing.assert_array_equal(database.molecule(first).positions, moved.positions)
        rows = ase.db.connect(spec.database, use_lock_file=False)
        row = rows.get(key="small/1/1")
        np.testing.assert_array_equal(row.data["generated"], qm9[20].positions)
        assert rows.metadata["key_descriptions"]["dft_gap"][2] == "eV"
        database.change(first, "xtb", Result(moved, {"status": "agrees"}))
        assert "reason" not in database.records()[0].values
        database.mark({first: {"status": "duplicate"}})
        assert [record.values["status"] for record in database.records()] == ["duplicate", "valid"]


def test_ase_understands_it(spec: Spec, qm9: list[Molecule]) -> None:
    with designed(spec, qm9):
        pass
    for query, count in (("gap>5,mu<1", 1), ("gap>4,mu<1", 2), ("mu>1", 0), ("status=valid,evaluator_gap<5", 1)):
        done = subprocess.run([sys.executable, "-m", "ase", "db", "-n", spec.database, query], capture_output=True,
                              text=True, check=True)
        assert done.stdout.split() == [str(count), "rows" if count != 1 else "row"]


def test_a_batch_is_stored_once_and_whole(spec: Spec, qm9: list[Molecule]) -> None:
    first, second = plan.undesigned(spec, [])
    with designed(spec, qm9) as database:
        before = [record.values for record in database.records()]
        with pytest.raises(DatabaseError, match=r"(?i)unique"):
            database.add(first, results(qm9))
        good, bad = results(qm9)
        with pytest.raises(ValueError, match="Bad value"):
            database.add(second, [good, Result(bad.molecule, {"status": [1]})])  # type: ignore[dict-item]
        assert [record.values for record in database.records()] == before
        database.add(second, results(qm9))
        assert len(database.records()) == 4


def test_only_one_works_on_it_at_a_time(spec: Spec) -> None:
    with Database.claimed(spec), pytest.raises(lock.Busy, match="is being worked on"), Database.claimed(spec):
        pass
    with Database.claimed(spec):
        pass


def test_another_campaign_and_other_data_are_refused(spec: Spec, qm9: list[Molecule]) -> None:
    with Database.claimed(spec):
        pass
    for changes, words in (({"seed": 1}, "whose seed is 0, not 1"), ({"molecules": 5}, "whose molecules is 4, not 5")):
        other = Spec.read({**SPEC, "database": spec.database, **changes})
        with pytest.raises(OtherCampaign, match=words), Database.claimed(other):
            pass
        with pytest.raises(OtherCampaign, match=words):
            Database.there(other)
    with Database.claimed(Spec.read({**SPEC, "database": spec.database, "workers": 9})):
        pass


def test_data_of_somebody_else_are_refused(spec: Spec, qm9: list[Molecule]) -> None:
    if "://" not in spec.database:
        Path(spec.database).parent.mkdir()
    ase.db.connect(spec.database, use_lock_file=False).write(qm9[0].to_ase(), gap=3.0)
    with pytest.raises(OtherCampaign, match="other data"), Database.claimed(spec):
        pass
    assert ase.db.connect(spec.database, use_lock_file=False).count() == 1


def test_a_campaign_that_has_not_begun_leaves_nothing(tmp_path: Path) -> None:
    assert Database.there(Spec.read({**SPEC, "database": str(tmp_path / "none.db")})) is None
    assert not any(tmp_path.iterdir())


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "no.db").write_text("this is not a database, and long enough to be read as one" * 20)
    for place in ("file/a.db", "no.db"):
        with pytest.raises(OSError, match=place.split("/")[0]), Database.claimed(
                Spec.read({**SPEC, "database": str(tmp_path / place)})):
            pass


def test_on_a_full_disk_what_is_done_is_kept(tmp_path: Path, qm9: list[Molecule]) -> None:
    spec = Spec.read({**SPEC, "database": str(tmp_path / "full.db")})
    first, second = plan.undesigned(spec, [])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Database.claimed(spec) as database:
        database.add(first, results(qm9))
        try:  # no file may grow any further, which the system tells SQLite when it writes
            resource.setrlimit(resource.RLIMIT_FSIZE, (Path(spec.database).stat().st_size, limits[1]))
            with pytest.raises(DatabaseError, match=r"full\.db: .*(disk|full)") as caught:
                for _ in range(100):
                    database.mark({record: {"reason": "x" * 4000} for record in database.records()})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(caught.value)
    with Database.claimed(spec) as database:  # as the next start does
        assert [record.values["status"] for record in database.records()] == ["valid", "valid"]
        database.add(second, results(qm9))
        assert len(database.records()) == 4


def test_a_server_that_does_not_answer_is_named_without_the_password() -> None:
    pytest.importorskip("psycopg2")
    spec = Spec.read({**SPEC, "database": "postgresql://me:secret@127.0.0.1:9/none"})
    with pytest.raises(DatabaseError, match=r"postgresql://127.0.0.1:9/none: .*refused") as caught:
        Database.there(spec)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", [{"target": "x"}, {"status": 5}, {"number": 1.5}])
def test_a_row_that_is_none_of_ours_is_named(spec: Spec, qm9: list[Molecule], odd: dict[str, float | str]) -> None:
    with designed(spec, qm9) as database:
        ase.db.connect(spec.database).update(2, **odd)
        with pytest.raises(OtherCampaign, match="holds a row, 2, that is not a campaign's"):
            database.records()

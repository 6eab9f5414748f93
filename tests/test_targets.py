"""Targets as users write them. Constants: CODATA 2018 as in scipy, independent of the code's own source."""

from __future__ import annotations

import ase.units
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from molflow.nn.property import PROPERTIES, UNITS
from molflow.targets import (
    FACTORS,
    Goal,
    TargetError,
    check_consistent,
    check_targets,
    parse_targets,
    quantity,
    warnings_for,
)


def read(texts):
    return check_targets(parse_targets(texts))


EV, BOHR = constants.e, constants.value("Bohr radius")
PER_MOLE = 1 / constants.N_A
DEBYE = 1e-21 / constants.c  # C m

IN_SI = {
    "eV": EV, "meV": 1e-3 * EV, "Ha": constants.value("Hartree energy"), "kcal/mol": 4184 * PER_MOLE,
    "kJ/mol": 1000 * PER_MOLE,
    "cal/(mol K)": 4.184, "cal/mol/K": 4.184, "J/(mol K)": 1.0, "J/mol/K": 1.0,
    "Bohr^3": BOHR**3, "Bohr³": BOHR**3, "a0^3": BOHR**3, "A^3": 1e-30, "Å³": 1e-30,
    "D": DEBYE, "e*Bohr": constants.e * BOHR,
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_units_agree_with_codata(name):
    assert UNITS[name] in FACTORS[name]
    for unit, factor in FACTORS[name].items():
        assert factor == pytest.approx(IN_SI[unit] / IN_SI[UNITS[name]], rel=1e-6)
        assert quantity(name, f"1{unit}") == factor


def test_units_agree_with_ase():
    assert quantity("gap", "1Ha") == ase.units.Hartree
    assert quantity("homo", "-1kcal/mol") == -ase.units.kcal / ase.units.mol
    assert quantity("lumo", "1kJ/mol") == ase.units.kJ / ase.units.mol
    assert quantity("alpha", "1A^3") == pytest.approx(ase.units.Angstrom**3 / ase.units.Bohr**3)
    assert quantity("mu", "1e*Bohr") == pytest.approx(ase.units.Bohr / ase.units.Debye)


@pytest.mark.parametrize(("text", "value"), [
    ("gap=5.0", 5.0), ("gap=5.0eV", 5.0), ("gap=0.18Ha", 4.898049), ("gap=5", 5.0), ("gap=.5", 0.5), ("gap=5.", 5.0),
    ("gap=+5e0", 5.0), ("gap=5E-1 eV", 0.5), (" gap = 5.0 eV ", 5.0), ("gap=5eV", 5.0), ("gap=5e3meV", 5.0)])
def test_a_gap_as_it_is_written(text, value):
    assert read([text])["gap"].value == pytest.approx(value, rel=1e-6)


def test_several_targets_in_the_order_given():
    wanted = read(["mu=1.2D", "homo=-6.1", "cv=100J/(mol K)", "alpha=70Bohr³"])
    assert list(wanted) == ["mu", "homo", "cv", "alpha"]
    assert [goal.value for goal in wanted.values()] == [1.2, -6.1, pytest.approx(23.900574), 70.0]


INF = float("inf")


@pytest.mark.parametrize(("text", "low", "high"), [
    ("gap=4..5", 4, 5), ("gap=4..5eV", 4, 5), ("gap=4000meV..5eV", 4, 5), ("gap=4000..5000meV", 4, 5),
    ("mu<1.0", -INF, 1), ("mu<=1 D", -INF, 1), ("homo > -6eV", -6, INF), ("homo>=-6", -6, INF), ("homo=-7..-6", -7, -6),
    ("lumo=-1e-1..1", -0.1, 1), ("alpha=max", INF, INF), ("cv = min", -INF, -INF), ("gap=5..5", 5, 5)])
def test_ranges_bounds_and_extremes(text, low, high):
    (wanted,) = read([text]).values()
    assert (wanted.low, wanted.high) == (low, high)


@pytest.mark.parametrize(("wanted", "goal"), [
    ((4, 5), Goal(4, 5)), ([-7.0, -6.5], Goal(-7, -6.5)), ("<1", Goal(-INF, 1)), ("4..5 eV", Goal(4, 5)),
    ("max", Goal(INF, INF)), (Goal(1, 2), Goal(1, 2))])
def test_goals_from_python(wanted, goal):
    assert check_targets({"gap": wanted}) == {"gap": goal}


def test_how_far_outside():
    assert [Goal(4, 5).miss(v) for v in (3.5, 4, 4.5, 5, 7)] == [-0.5, 0, 0, 0, 2]
    assert [Goal(5, 5).miss(v) for v in (4.5, 5)] == [-0.5, 0] and Goal(-INF, 1).miss(-100) == 0
    assert Goal(INF, INF).within((0.7, 17)) == Goal(17, INF) and Goal(-INF, -INF).within((0.7, 17)) == Goal(-INF, 0.7)
    assert Goal(4, 5).within((0.7, 17)) == Goal(4, 5)
    assert Goal(4, 5).inside(0.1) == Goal(4.1, 4.9) and Goal(4, 5).inside(3) == Goal(4.25, 4.75)
    assert Goal(-INF, 1).inside(0.1) == Goal(-INF, 0.9) and Goal(5, 5).inside(0.1) == Goal(5, 5)


BOUND = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.sampled_from(PROPERTIES), BOUND, BOUND, st.sampled_from([-INF, INF]), st.booleans())
def test_a_goal_written_is_read_as_the_same(name, one, other, infinite, open_ended):
    low, high = sorted((one, infinite if open_ended else other))
    for goal in (Goal(low, high), Goal(one, one), Goal(infinite, infinite)):
        assert check_targets({name: str(goal)}) == {name: goal}


def test_a_gap_that_contradicts_homo_and_lumo_is_refused():
    errors = {"gap": 0.08, "homo": 0.06, "lumo": 0.05}
    for texts in (["gap=5", "homo=-6", "lumo=-1.15"], ["gap=5", "homo=-6"], ["gap>5", "homo<-6", "lumo=0"],
                  ["gap=max", "homo=-6", "lumo>1"], ["gap=4..5", "homo=-7..-6", "lumo=-1"]):
        check_consistent(read(texts), errors)
    with pytest.raises(TargetError, match=r"^gap=5 contradicts homo=-6 and lumo=0: gap = lumo - homo would be 6 eV$"):
        check_consistent(read(["gap=5", "homo=-6", "lumo=0"]), errors)
    with pytest.raises(TargetError, match=r"gap=4\.\.5 contradicts homo=-7\.\.-6 .* would be 5.5 to 6.5 eV$"):
        check_consistent(read(["gap=4..5", "homo=-7..-6", "lumo=-0.5"]), errors)


@pytest.mark.parametrize("value", [5, 5.0, np.float32(5), np.float64(5), "5", "5 eV", "5000meV"])
def test_targets_from_python(value):
    assert check_targets({"gap": value}) == {"gap": Goal(5.0, 5.0)}


@pytest.mark.parametrize(("texts", "words"), [
    (["band_gap=5"], "unknown property 'band_gap': known are alpha, gap, homo, lumo, mu, cv"),
    (["Gap=5"], "unknown property 'Gap'"),
    (["=5"], "unknown property ''"),
    (["gap"], "cannot read target 'gap': write property=value, for example gap=5.0"),
    ([""], "cannot read target ''"),
    (["gap=5", "mu=1", "gap=6"], "target gap is given twice"),
    (["gap>4", "gap <5"], r"target gap is given twice; for a range write gap=LOW\.\.HIGH"),
    (["gap=5D"], "'D' is not a unit of gap: use eV, meV, Ha, kcal/mol, kJ/mol"),
    (["mu=1eV"], "'eV' is not a unit of mu: use D, e\\*Bohr"),
    (["alpha=1A"], "'A' is not a unit of alpha"),
    (["cv=1cal"], "'cal' is not a unit of cv"),
    (["gap=5e"], "'e' is not a unit of gap"),
    (["gap=5..4"], r"gap=5\.\.4 is an empty range: write the smaller bound first"),
    (["gap=5.."], "cannot read '' as a value of gap in eV"),
    (["mu<"], "cannot read '' as a value of mu in D"),
    (["mu<max"], "cannot read 'max'"),
    (["gap=5=6"], "'=6' is not a unit of gap"),
    (["gap="], "cannot read '' as a value of gap in eV"),
    (["gap=eV"], "cannot read 'eV' as a value of gap in eV"),
    (["gap=wide"], "cannot read 'wide'"),
    (["gap=nan"], "cannot read 'nan'"),
    (["gap=inf"], "cannot read 'inf'"),
    (["gap=1e999"], "gap must be a finite number, got '1e999'"),
    (["gap=1e308Ha"], "gap must be a finite number"),
    ([], "give at least one target"),
])
def test_what_cannot_be_understood_is_said_in_one_sentence(texts, words):
    with pytest.raises(TargetError, match=f"^{words}") as caught:
        read(texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("targets", [{}, {"gap": None}, {"gap": float("nan")}, {"gap": float("inf")}, {"gap": [5]},
                                     {"gap": True}, {5: 5.0}, {"gap": ""}])
def test_what_python_gives_wrongly(targets):
    with pytest.raises(TargetError):
        check_targets(targets)


@settings(deadline=None)
@given(st.lists(st.text() | st.builds("{}={}".format, st.sampled_from(PROPERTIES), st.text())
                | st.builds("{}={}{}".format, st.sampled_from(PROPERTIES), st.floats() | st.integers(),
                            st.sampled_from(sorted(IN_SI)) | st.text("eVmHa0. -+", max_size=4)), max_size=3))
def test_parsing_gives_finite_numbers_or_a_target_error(texts):
    try:
        wanted = read(texts)
    except TargetError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert len(wanted) == len(texts) and set(wanted) <= set(PROPERTIES)
        assert all(np.isfinite(goal.low) or np.isfinite(goal.high) or str(goal) in ("max", "min")
                   for goal in wanted.values())


@settings(deadline=None)
@given(st.sampled_from(PROPERTIES), st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_exactly(name, value):
    assert read([f"{name}={value!r}"]) == check_targets({name: value}) == {name: Goal(value, value)}


def test_a_target_out_of_range_is_warned_of_with_the_range():
    ranges = {"gap": (0.669, 16.928), "mu": (0.0, 29.5564)}
    for fine in ({"gap": 0.669, "mu": 29.5564}, {"gap": "<20", "mu": "max"}, {"gap": "10..20", "mu": ">-1"}):
        assert warnings_for(check_targets(fine), ranges) == []
    assert warnings_for(check_targets({"gap": 25.0, "mu": "<-1"}), ranges) == [
        "gap=25 eV lies outside what the model has seen (0.67 to 16.93): expect misses",
        "mu<-1 D lies outside what the model has seen (0.00 to 29.56): expect misses",
    ]


def test_the_time_to_read_a_target_grows_with_its_length_only():
    """A regular expression that tried every way to share out the spaces took minutes for two thousand."""
    many = 200_000
    for text in (" " * many, "gap=" + "1" * many + "\nx", "gap=5" + " " * many + "x\ny", "gap" + " " * many):
        with pytest.raises(TargetError):
            check_targets(parse_targets([text]))

"""Specifications: what is read, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from molflow.campaign.spec import Dft, Spec, SpecError, Xtb

LEAST = {"name": "a", "targets": [{"gap": 5}], "molecules": 3}


def test_a_file_with_everything(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text("""\
name: gaps-2026
seed: 7
targets:
  - {gap: 5}
  - {gap: 0.18Ha, mu: 1.5D}
molecules: 100
batch: 8
atoms: 18
budget: {draws: 4, gradients: 0}
xtb: {relax: false}
dft: {best: 3, relax: true}
database: results/gaps.db
workers: 4
slurm: {queue: normal, cores: 8, memory: 16GB}
""")
    assert Spec.read(path) == Spec(
        name="gaps-2026", seed=7, targets=({"gap": 5.0}, {"gap": "0.18Ha", "mu": "1.5D"}), molecules=100, batch=8,
        atoms=18, budget={"draws": 4, "gradients": 0}, xtb=Xtb(relax=False), dft=Dft(best=3, relax=True),
        database=str(tmp_path / "results" / "gaps.db"), workers=4,
        slurm={"queue": "normal", "cores": 8, "memory": "16GB"})


def test_defaults_and_what_switches_stages_off(tmp_path: Path) -> None:
    assert Spec.read(LEAST) == Spec("a", ({"gap": 5.0},), 3, database="a.db")
    assert Spec.read({**LEAST, "xtb": True}).xtb == Spec.read(LEAST).xtb == Xtb(relax=True)
    assert Spec.read({**LEAST, "xtb": False}).xtb is None is Spec.read({**LEAST, "xtb": None}).xtb
    assert Spec.read({**LEAST, "dft": False}).dft is None is Spec.read(LEAST).dft
    assert Spec.read({**LEAST, "dft": {"best": 2}}).dft == Dft(2, relax=False)
    server = "postgresql://me@host/name"
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**LEAST, "database": server}))
    assert Spec.read(tmp_path / "s.yaml").database == server


@pytest.mark.parametrize(("changes", "words"), [
    ({"target": 1}, "unknown key target: did you mean targets?"),
    ({"colour": 1}, "unknown key colour: known are name, targets"),
    ({"dft": {"best": 1, "relaxed": True}}, "unknown key dft.relaxed: did you mean dft.relax?"),
    ({"budget": {"draw": 1}}, "unknown key budget.draw: did you mean budget.draws?"),
    ({"name": None}, "name is missing"),
    ({"name": "1 a"}, "name must be a word"),
    ({"name": "a\n"}, "name must be a word"),
    ({"targets": []}, "targets must be a list"),
    ({"targets": {"gap": 5}}, "targets must be a list"),
    ({"targets": [{"gap": 5}, 3]}, "targets: number 2"),
    ({"targets": [{"gab": 5}]}, "number 1: unknown property 'gab'"),
    ({"targets": [{"gap": "5D"}]}, "'D' is not a unit of gap"),
    ({"targets": [{}]}, "at least one target"),
    ({"molecules": 0}, "molecules must be a whole number of at least 1, not 0"),
    ({"molecules": True}, "molecules must be"),
    ({"molecules": 10**18}, "molecules must be a whole number from 1 to 10000000"),
    ({"budget": {"draws": 10**30}}, "budget.draws must be a whole number from 1 to"),
    ({"x" * 10**6: 1}, "unknown key xxx"),
    ({"targets": [["x" * 10**6]]}, "number 1 must be a mapping"),
    ({"seed": -1}, "seed must be"),
    ({"batch": 1001}, "from 1 to 1000"),
    ({"budget": {"draws": 0}}, "budget.draws"),
    ({"xtb": "yes"}, "xtb must be true or false"),
    ({"dft": True}, "{best: 10}"),
    ({"database": "a.sqlite"}, "ends in .db"),
    ({"database": "a/.db"}, "ends in .db"),
    ({"scheduler": "host:8786"}, "tcp://host:8786"),
    ({"scheduler": "tcp://host:8786", "workers": 2}, "a scheduler has its own workers"),
    ({"slurm": {"queue": "normal"}}, "slurm needs workers"),
])
def test_what_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        Spec.read({**LEAST, **changes})
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [
    ("", "needs name, targets and molecules"),
    ("- 1", "needs name, targets and molecules"),
    ("name: [a", "line 1"),
    ("name: a\nname: b", "line 2: name is given twice"),
    ("name: a\ntargets: [{gap: 5, gap: 6}]", "line 2: gap is given twice"),
    ("name: 2024-13-45", "not YAML"),
    ("name: !!python/object:os.system x", "not YAML"),
    ("name: &a [*a]\ntargets: *a\nmolecules: 1", "line 1: aliases"),
    ("targets: [{gap: 5}]\nslurm:\n  a: &a [x, x]\n  b: [*a, *a]", "line 4: aliases"),
    ("name: a\nmolecules: 0x" + "f" * 9999 + "\ntargets: [{gap: 5}]", "molecules must be a whole number"),
    ("name: a\nmolecules: 1\ntargets: [{gap: 5}]\ndatabase: ~nobody-of-that-name/a.db", "database: "),
    ("name: '\0'", "not YAML"),
])
def test_files_that_are_no_specification(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        Spec.read(path)
    assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


numbers = st.integers(-3, 2000)
anything = st.recursive(st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=8) | st.dates(),
                        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                            st.sampled_from(["gap", "best", "relax", "draws", "x"]) | st.integers(), inner, max_size=3),
                        max_leaves=6)
keys = st.sampled_from(["name", "targets", "molecules", "seed", "batch", "atoms", "budget", "xtb", "dft", "database",
                        "workers", "scheduler", "slurm"])


@given(st.dictionaries(keys, anything))
def test_nothing_but_a_specification_or_a_sentence_comes_out(changes: dict) -> None:
    try:
        spec = Spec.read({**LEAST, **changes})
    except SpecError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert spec.molecules >= 1 and len(spec.digest) == 64


@given(st.text() | st.text(alphabet=" \n-:{}[]&*!|>'\"#%a1,?@`"))
def test_no_text_makes_the_reader_fall_over(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(SpecError):
        Spec.read(path)


targets = st.lists(st.dictionaries(st.sampled_from(["gap", "mu", "homo"]),
                                   st.floats(-20, 20) | st.sampled_from(["0.18", "1.5"]), min_size=1), min_size=1)
specs = st.fixed_dictionaries(
    {"name": st.from_regex(r"[a-zA-Z][a-z0-9_-]*", fullmatch=True), "targets": targets,
     "molecules": st.integers(1, 10**6)},
    optional={"seed": st.integers(0, 2**63 - 2), "batch": st.integers(1, 1000), "xtb": st.booleans(),
              "dft": st.none() | st.fixed_dictionaries({"best": st.integers(1, 2**63 - 1)},
                                                       optional={"relax": st.booleans()}),
              "workers": st.integers(1, 64)})


@given(specs, st.randoms())
def test_neither_yaml_nor_the_order_of_keys_changes_a_campaign(tmp_path_factory: pytest.TempPathFactory, wanted: dict,
                                                               random) -> None:
    path = tmp_path_factory.getbasetemp() / "s.yaml"
    shuffled = dict(random.sample(sorted(wanted.items()), len(wanted)))
    path.write_text(yaml.safe_dump(shuffled, sort_keys=False))
    first, second = Spec.read(wanted), Spec.read(path)
    assert first.identity == second.identity and first.digest == second.digest
    other = Spec.read({**wanted, "seed": wanted.get("seed", 0) + 1})
    assert other.digest != first.digest
    assert Spec.read({**wanted, "workers": 65, "database": "other.db"}).digest == first.digest

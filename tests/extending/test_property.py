"""A property of one's own, as somebody outside writes it: a function of a batch of molecules."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import molflow
from molflow import Budget, Property

TINY = Budget(draws=2, generations=2, children=3, gradients=1, trials=2)
ELEMENTS = [1, 6, 7, 8, 9]  # the columns of types, of the model qm9
MASSES = torch.tensor([1.008, 12.011, 14.007, 15.999, 18.998])


def gyration(positions, types, mask):
    """Mass-weighted radius of gyration, Å."""
    mass = (types * MASSES).sum(-1, keepdim=True)
    total = mass.sum(1, keepdim=True)
    middle = (mass * positions).sum(1, keepdim=True) / total
    return ((mass * (positions - middle).square()).sum((1, 2)) / total.flatten()).sqrt()


def by_hand(molecule) -> float:
    """The same of one molecule, in numpy."""
    mass = MASSES.double().numpy()[[ELEMENTS.index(number) for number in molecule.numbers]]
    middle = mass @ molecule.positions / mass.sum()
    return float(np.sqrt(mass @ ((molecule.positions - middle) ** 2).sum(1) / mass.sum()))


GYRATION = {"gyration": Property(gyration, unit="Å", resolution=0.02)}


@pytest.fixture(scope="module")
def found():
    return molflow.design({"gyration": 1.8}, n=2, seed=1, properties=GYRATION, budget=TINY, device="cpu")


def test_it_is_what_it_says_and_nearer_than_what_is_drawn(found):
    drawn = molflow.sample(2, seed=1, device="cpu")
    for molecule in found.molecules:
        assert molecule.is_valid
        for who in ("guide", "evaluator"):
            assert molecule.properties[f"{who}_gyration"] == pytest.approx(by_hand(molecule), rel=1e-4)
        assert "guide_error_gyration" not in molecule.properties  # of what is calculated there is no doubt
    miss = [np.mean([abs(by_hand(molecule) - 1.8) for molecule in some]) for some in (found.molecules, drawn)]
    assert miss[0] < miss[1] / 2
    assert (found.history[-1] < found.history[0]).any()  # the search itself has brought something, too


def test_the_run_shows_it_as_what_it_is(found, tmp_path, capsys):
    folder = found.save(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    assert record["units"] == {"gyration": "Å"}
    assert "gyration, Å, resolution 0.02" in record["settings"]["properties"]["gyration"]
    page = (folder / "report.html").read_text()
    for words in ("gyration 1.8 Å", "<td>function</td>", "What a function says is exact", "gyration function"):
        assert words in page
    assert "molflow design --target" not in page  # which could not repeat it
    assert "by its function" in found._repr_html_() and "1.8 Å" in found._repr_html_()
    assert molflow.write_report(folder, tmp_path / "again.html").is_file()


def test_together_with_what_the_guide_reads():
    """Candidates come from the atlas by the gap, and are chosen by both."""
    run = molflow.design({"gap": "5..7", "gyration": "<1.7"}, n=2, properties=GYRATION, budget=TINY, device="cpu")
    for molecule in run.molecules:
        assert 4.9 < molecule.properties["guide_gap"] < 7.1
        assert molecule.properties["target_gyration"] == "<1.7"
        assert molecule.properties["guide_gyration"] == pytest.approx(by_hand(molecule), rel=1e-4)
    looked_up = np.mean([molecule.properties["guide_gyration"] for molecule in run.molecules])
    only_gap = molflow.design({"gap": "5..7"}, n=2, properties=GYRATION, budget=TINY, device="cpu")
    assert looked_up < np.mean([molecule.properties["evaluator_gyration"] for molecule in only_gap.molecules])


def test_as_small_and_as_large_as_possible():
    runs = [molflow.design({"gyration": wanted}, n=2, seed=3, properties=GYRATION, budget=TINY, device="cpu")
            for wanted in ("min", "max")]
    small, large = ([by_hand(molecule) for molecule in run.molecules] for run in runs)
    assert max(small) < min(large)
    assert all(np.isfinite(run.history).all() and run.targets["gyration"].is_extreme for run in runs)


def test_elements_have_a_gradient_and_a_module_will_do():
    class Nitrogens(torch.nn.Module):
        def forward(self, positions, types, mask):
            return types[..., 2].sum(1) + 0 * positions.sum((1, 2))

    run = molflow.design({"nitrogens": 2}, n=2, properties={"nitrogens": Property(Nitrogens(), resolution=0.3)},
                         budget=Budget(draws=6, generations=2, gradients=0), device="cpu")
    for molecule in run.molecules:
        assert molecule.properties["evaluator_nitrogens"] == (molecule.numbers == 7).sum() == 2
        assert f"{molecule.properties['target_nitrogens']}" == "2.0"


def distances(positions, types, mask):
    return (positions[:, None] - positions[:, :, None]).square().sum(-1).sqrt().sum((1, 2))  # from itself, too


@pytest.mark.parametrize(("function", "words"), [
    (lambda x, h, m: x.sum((1, 2)) / 0, "no finite numbers"),
    (lambda x, h, m: x.sum(1), r"a float tensor \(2,\) for two of them, not \(2, 3\)"),
    (lambda x, h, m: m.sum(1), r"not \(2,\) torch.int64"),
    (lambda x, h, m: 1.0, "not float"),
    (lambda x, h, m: x.detach().square().sum((1, 2)), "no gradient"),
    (distances, "gradient that is not finite"),
    (lambda x, h, m: x.square().mean((1, 2)), "padding must not count"),
    (lambda x, h, m: x.square().sum((1, 2)) - x.square().mean(), "nor other molecules"),
    (lambda x, h, m: x @ h, "fails on water and methanol: RuntimeError"),
])
def test_a_function_that_is_of_no_use_is_refused_in_one_sentence(function, words):
    with pytest.raises(ValueError, match=f"^the function of mine .*{words}") as caught:
        molflow.design({"mine": 1.0}, n=1, properties={"mine": Property(function)}, device="cpu")
    assert "\n" not in str(caught.value) and type(caught.value).__name__ == "TargetError"


@pytest.mark.parametrize(("targets", "properties", "words"), [
    ({"size": 1}, GYRATION, r"^unknown property 'size': known are alpha, gap, homo, lumo, mu, cv, gyration$"),
    ({"gap": 5}, {"gap": Property(gyration)}, "^there is a property gap already"),
    ({"gap": 5}, {"qed": Property(gyration)}, "^there is a property qed already"),
    ({"gap": 5}, {"a<b": Property(gyration)}, "^a property cannot be called 'a<b'"),
    ({"gyration": 5}, {"gyration": Property(gyration, resolution=0.0)}, "^the resolution of gyration"),
    ({"gyration": "5 eV"}, GYRATION, "^'eV' is not a unit of gyration: use Å$"),
])
def test_names_units_and_resolutions_are_checked(targets, properties, words):
    with pytest.raises(ValueError, match=words):
        molflow.design(targets, n=1, properties=properties, device="cpu")


def test_a_unit_that_is_known_may_be_given_in_another():
    run = molflow.design({"level": "-200 meV"}, n=1, budget=Budget(draws=1, generations=0, gradients=0), device="cpu",
                         properties={"level": Property(lambda x, h, m: x.square().sum((1, 2)), unit="eV")})
    assert run.targets["level"].value == pytest.approx(-0.2)

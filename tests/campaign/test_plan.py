"""What is left to do depends on what is stored and on nothing else: not on the order in which it came in."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from molflow.campaign import plan
from molflow.campaign.plan import Record
from molflow.campaign.spec import Spec

SPEC = Spec.read({"name": "a", "targets": [{"gap": 5.0}, {"gap": 6.0}], "molecules": 5, "batch": 2, "dft": {"best": 2}})
PLACES = [(target, number) for target in (1, 2) for number in range(1, 6)]


@st.composite
def campaigns(draw: st.DrawFn) -> list[Record]:
    """A campaign whose molecules are designed, and verified by xTB."""
    records = []
    for (target, number), smiles in zip(PLACES, draw(st.permutations([*"CNOFCNO", "CC", "CO", "CN"])), strict=True):
        status = draw(st.sampled_from(["valid", "valid", "valid", "invalid"]))
        values: dict[str, Any] = {"key": f"a/{target}/{number}", "target": target, "number": number, "status": status,
                                  "smiles": smiles, "target_gap": 4.0 + target,
                                  "evaluator_gap": draw(st.integers(40, 70)) / 10}
        if status == "valid":
            values["xtb_verdict"] = draw(st.sampled_from(["agrees", "off target", "breaks", "failed", "strained"]))
        records.append(Record(len(records), 0.0, values))
    return records


def test_what_is_not_designed() -> None:
    batches = plan.undesigned(SPEC, [])
    assert [place for batch in batches for place in batch.places] == PLACES
    assert [len(batch.places) for batch in batches] == [2, 2, 1, 2, 2, 1]
    assert len({batch.seed for batch in batches}) == 6
    assert [batch.share for batch in batches] == [(0, 3), (1, 3), (2, 3)] * 2
    assert batches == plan.undesigned(SPEC, [])
    stored = [Record(1, 0.0, {"target": 1, "number": 3}), Record(2, 0.0, {"target": 1, "number": 4})]
    assert plan.undesigned(SPEC, stored) == [batch for batch in batches if (batch.target, batch.first) != (1, 3)]


@given(campaigns(), st.randoms())
def test_the_order_of_completion_decides_nothing(records: list[Record], random: Any) -> None:
    shuffled = random.sample(records, len(records))
    assert plan.split(shuffled) == plan.split(records)
    for method in ("xtb", "dft"):
        assert plan.wanted(SPEC, shuffled, method) == plan.wanted(SPEC, records, method)
    assert plan.survey(SPEC, shuffled) == plan.survey(SPEC, records)


@given(campaigns())
def test_each_valid_molecule_is_kept_once_and_first(records: list[Record]) -> None:
    unique, again = plan.split(records)
    valid = [record for record in records if record.values["status"] == "valid"]
    assert Counter(unique) + Counter(record for record, _ in again) == Counter(valid)
    assert {record.values["smiles"] for record in unique} == {record.values["smiles"] for record in valid}
    assert len(unique) == len({record.values["smiles"] for record in unique})
    for record, first in again:
        assert first in unique and first.values["smiles"] == record.values["smiles"] and first.place < record.place


@given(campaigns())
def test_the_best_of_each_target_go_to_dft_and_stay_the_best(records: list[Record]) -> None:
    chosen = plan.wanted(SPEC, records, "dft")
    fit = [r for r in plan.split(records)[0] if r.values["xtb_verdict"] in ("agrees", "off target")]
    for target in (1, 2):
        mine = [record for record in fit if record.place[0] == target]
        taken = [record for record in chosen if record.place[0] == target]
        assert len(taken) == min(2, len(mine))
        for left in (record for record in mine if record not in taken):
            for record in taken:
                better = [abs(r.values["evaluator_gap"] - r.values["target_gap"]) for r in (record, left)]
                assert record.values["xtb_verdict"] == "agrees" or left.values["xtb_verdict"] == "off target"
                assert record.values["xtb_verdict"] != left.values["xtb_verdict"] or better[0] <= better[1] + 1e-9
    # marked, and some verified meanwhile: the same choice
    for record, first in plan.split(records)[1]:
        record.values.update(status="duplicate", duplicate_of=first.values["key"])
    for record in chosen[::2]:
        record.values.update(dft_verdict="failed", status="failed")
    assert plan.wanted(SPEC, records, "dft") == chosen
    assert plan.survey(SPEC, records).dft == (len(chosen[::2]), len(chosen))


def test_a_campaign_without_xtb_takes_every_valid_molecule_for_fit() -> None:
    spec = Spec.read({"name": "a", "targets": [{"gap": 5.0}], "molecules": 3, "xtb": False, "dft": {"best": 1}})
    records = [Record(n, 0.0, {"target": 1, "number": n, "status": "valid", "smiles": "C" * n, "target_gap": 5.0,
                               "evaluator_gap": gap}) for n, gap in ((1, 6.0), (2, 5.1), (3, 4.8))]
    assert plan.wanted(spec, records, "xtb") == [] and plan.wanted(spec, records, "dft") == [records[1]]
    assert str(plan.survey(spec, records)) == "a: 3 wanted, 3 designed, 3 distinct, 0 duplicates; DFT 0 of 1; 3 valid"


def test_a_molecule_whose_job_failed_is_counted_and_never_verified() -> None:
    records = [Record(1, 0.0, {"target": 1, "number": 1, "status": "failed", "reason": "4 workers died of it"})]
    assert plan.split(records) == ([], [])
    assert plan.survey(SPEC, records).words == {"failed": 1}


def test_the_summary_says_how_many_there_are_of_what_was_wanted() -> None:
    molecules = [("C", "valid"), ("C", "valid"), ("N", "invalid"), ("O", "valid")]
    records = [Record(n, 0.0, {"target": 1, "number": n, "status": status, "smiles": smiles, "target_gap": 5.0})
               for n, (smiles, status) in enumerate(molecules, start=1)]
    found = plan.survey(SPEC, records)
    assert found.distinct == 2
    assert str(found) == ("a: 10 wanted, 4 designed, 2 distinct, 1 duplicate; xTB 0 of 2; DFT 0 of 2; 2 valid, "
                          "1 invalid")

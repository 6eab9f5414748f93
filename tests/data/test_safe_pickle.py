from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from molflow.data.safe_pickle import PickledMol, Refused, entries, load

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.binary(min_size=1, max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    | st.tuples(inner, inner) | st.tuples(inner, inner, inner, inner), max_leaves=15)  # fmt: skip


def mol(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


@given(PLAIN, st.sampled_from([2, 3, 4, 5]))
@settings(max_examples=200)
def test_plain_values_are_what_pickle_reads(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert load(io.BytesIO(data)) == value


@PROTOCOLS
def test_molecules_and_numpy_numbers(protocol: int) -> None:
    value = {"rd_mol": mol("c1ccncc1O"), "energy": np.float64(-1.25), "count": np.int64(7), "flag": np.bool_(True)}
    read = load(io.BytesIO(pickle.dumps(value, protocol)))
    assert (read["energy"], read["count"], read["flag"]) == (-1.25, 7, True)
    assert Chem.MolToSmiles(Chem.Mol(read["rd_mol"].data)) == Chem.MolToSmiles(value["rd_mol"])


@PROTOCOLS
def test_a_list_is_read_entry_by_entry_and_forgotten(protocol: int) -> None:
    """As many entries as need several of pickle's portions of 1,000; SMILES are shared between them."""
    same = mol("CCO").ToBinary()
    value = [("CCO", [Chem.Mol(same)]) for _ in range(2500)]
    reader = entries(io.BytesIO(pickle.dumps(value, protocol)))
    assert next(reader) == ("CCO", [PickledMol(same)])
    assert sum(1 for _ in reader) == 2499


class Nasty:
    def __init__(self, how: tuple) -> None:
        self.how = how

    def __reduce__(self) -> tuple:
        return self.how


@PROTOCOLS
@pytest.mark.parametrize("read", [load, lambda file: list(entries(file))], ids=["load", "entries"])
def test_nothing_a_file_says_is_run(protocol: int, read, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    hostile = [
        Nasty((os.system, (f"touch {victim}",))),
        Nasty((eval, (f"open({str(victim)!r}, 'w')",))),
        Nasty((Path, (str(victim),))),
        OrderedDict(a=1),
        np.arange(3),
        {1, 2},
        len,
        Nasty((Chem.Mol, (str(victim),))),
    ]
    for thing in hostile:
        data = pickle.dumps([("C", [thing])], protocol)
        with pytest.raises(Refused):
            read(io.BytesIO(data))
    assert not victim.exists()


@pytest.mark.parametrize("data", [
    b"cos\nsystem\n(S'echo'\ntR.", b"(ios\nsystem\nS'echo'\no.", b"\x80\x04cbuiltins\neval\n\x8c\x011\x85R.",
    b"\x80\x02crdkit.Chem.rdchem\nMol\n}\x8c\x08__init__K\x01sb.", b"\x80\x04]\x94h\x05a.", b"\x80\x04a.", b"", b"x",
    b"\x80\x04(((.", b"\x80\x04K\x01K\x02.", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x82\x01.", b"P1\n.",
    b"\x80\x02c_codecs\nencode\nK\x01X\x06\x00\x00\x00latin1\x86R.",
])  # fmt: skip
def test_hand_written_and_damaged_ones_are_refused_in_a_line(data: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        load(io.BytesIO(data))
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 200


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\x02", b"\x80\x04"]))
@settings(max_examples=150)
def test_any_bytes_are_read_or_refused(data: bytes, head: bytes) -> None:
    for read in (load, lambda file: list(entries(file))):
        with contextlib.suppress(Refused):
            read(io.BytesIO(head + data))


@pytest.mark.parametrize(("data", "words"), [
    (b"})" + b"\x85" * 1_000_000 + b"Ns.", "something else than text"),  # to hash such a tuple ends the process
    (b"}(" + b")" + b"\x85" * 1_000_000 + b"Nu.", "something else than text"),
    (b"(" * 200_000 + b"t" * 200_000 + b".", ""),
    (b"(" * 200_000 + b"l" * 200_000 + b".", "wants LIST"),
    (b"]q\0h\0a.", ""),  # a list that holds itself
    (b"X\xff\xff\xff\x7fabc.", "damaged"), (b"\x8d" + b"\xff" * 8 + b".", "damaged"),
    (b"\x8b\xff\xff\xff\x7f" + b"1.", "wants LONG4|damaged"),
    # a text of 100 kB made into bytes a thousand times
    (b"(c_codecs\nencode\nq\0X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"q\1X\6\0\0\0latin1q\2"
     + b"h\0h\1h\2\x86R" * 1000 + b"t.", "again and again"),
    (b"cbuiltins\neval\n(X\1\0\0\0" + b"1tR.", "asks for builtins.eval"),
    (b"\x8c\x08builtins\x8c\x04exec\x93.", "asks for builtins.exec"),
    (b"cposix\nsystem\n.", "asks for posix.system"), (b"cos\nsystem\n.", "asks for os.system"),
    (b"\x82\1.", "wants EXT1"), (b"Pabc\n.", "wants PERSID"), (b"ios\nsystem\n.", "wants INST"),
    (b"(cos\nsystem\no.", "asks for|wants OBJ"), (b"c_codecs\nencode\n)\x81.", "wants NEWOBJ"),
])
def test_bombs_do_not_go_off(data: bytes, words: str) -> None:
    if not words:
        load(io.BytesIO(b"\x80\4" + data))
        return
    with pytest.raises(Refused, match=words) as caught:
        load(io.BytesIO(b"\x80\4" + data))
    assert "\n" not in str(caught.value)


def test_calls_within_calls_are_refused() -> None:
    inner = Nasty((Chem.Mol, (Nasty((os.getcwd, ())),)))
    with pytest.raises(Refused, match="getcwd"):
        load(io.BytesIO(pickle.dumps(Nasty((Chem.Mol, (inner,))))))

"""Reading strangers' pickles: the few things that GEOM's hold, by an interpreter that can make nothing else.

Python's own `pickle` runs whatever a file tells it to. Here no name in a file is ever looked up: there is a handful of
operations on lists, dictionaries, text and numbers, and RDKit molecules are the bytes that RDKit itself reads. Anything
else is refused. Lists are read entry by entry, so that a file need not fit into memory.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from molflow.data.store import DataError

LONG = 1000
"""Text longer than this is not remembered once its entry has been read: in old pickles it is a molecule's bytes."""


class Refused(DataError):
    """A pickle wants what GEOM's do not, or is damaged."""


@dataclass(frozen=True)
class PickledMol:
    """An RDKit molecule, for ``Chem.Mol(data)`` to make."""

    data: bytes


@dataclass(frozen=True)
class _Name:
    """What a pickle would import."""

    text: str


@dataclass(frozen=True)
class _Number:
    """numpy's description of a number, of a few plain kinds."""

    kind: str


_MARK = object()
_NUMBERS = {"f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


def load(file: IO[bytes]) -> Any:
    """What a pickle holds. Raises Refused."""
    reader = _Reader(streamed=False)
    for _ in reader.read(file):
        pass
    return reader.stack[0]


def entries(file: IO[bytes]) -> Iterator[Any]:
    """The entries of the list that a pickle holds, one after the other; they cannot refer to one another's molecules.
    Raises Refused."""
    return _Reader(streamed=True).read(file)


class _Reader:
    def __init__(self, streamed: bool) -> None:
        self.streamed = streamed
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.made = 0  # bytes that did not stand in the file as such
        self.count = 0  # of all that was ever remembered, which newer pickles number by
        self.recent: list[int] = []

    def read(self, file: IO[bytes]) -> Iterator[Any]:
        self.file = file
        try:
            for operation, argument, _ in pickletools.genops(file):
                name = operation.name
                if name in ("APPEND", "APPENDS"):
                    new = self.since_mark() if name == "APPENDS" else [self.stack.pop()]
                    if self.streamed and len(self.stack) == 1:
                        yield from new
                        self.forget()
                    else:
                        self.top(list).extend(new)
                else:
                    self.do(name, argument)
            if len(self.stack) != 1 or (self.streamed and self.stack != [[]]):
                raise Refused("is not a list" if self.streamed else "holds not one value")
        except (ValueError, IndexError, KeyError, TypeError, MemoryError, OverflowError) as error:
            if isinstance(error, Refused):
                raise
            raise Refused(f"is damaged ({type(error).__name__}: {str(error)[:100]})") from None

    def do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME", "STOP"):
            pass
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            stack.append(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "TUPLE":
            stack.append(tuple(self.since_mark()))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.top(dict).update(_named_by_text([(key, value)]))
        elif name == "SETITEMS":
            pairs = self.since_mark()
            self.top(dict).update(_named_by_text(zip(pairs[::2], pairs[1::2], strict=True)))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            place = self.count if name == "MEMOIZE" else argument
            self.memo[place] = stack[-1]
            self.recent.append(place)
            self.count += 1
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(_named(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_named(f"{stack[-2]}.{stack[-1]}")]
        elif name == "REDUCE":
            given, what = stack.pop(), stack.pop()
            stack.append(made := _made(what, given))
            self.made += len(made) if isinstance(made, bytes) else 0
            if self.made > self.file.tell():  # one text turned into bytes again and again
                raise Refused("says the same again and again")
        elif name == "BUILD":
            self.check_state(stack.pop(), stack[-1])
        else:
            raise Refused(f"wants {name}, which GEOM does not need")

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise Refused(f"is damaged (a {kind.__name__} was expected)")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        place = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), -1)
        if place < 0:
            raise Refused("is damaged (a mark was expected)")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def forget(self) -> None:
        for place in self.recent:
            kept = self.memo.get(place)
            if not (isinstance(kept, _Name) or (isinstance(kept, str) and len(kept) < LONG)):
                self.memo.pop(place, None)
        self.recent.clear()

    def check_state(self, state: Any, of: Any) -> None:
        """RDKit molecules come with an empty dictionary, numpy's numbers with their byte order."""
        if isinstance(of, PickledMol) and state in (({},), {}, None):
            return
        if isinstance(of, _Number) and isinstance(state, tuple) and state[1] in ("<", "|"):
            return
        raise Refused("sets the state of something, which GEOM does not need")


def _named(text: str) -> _Name:
    if text not in _MAKERS:
        raise Refused(f"asks for {' '.join(text[:100].split())}, which GEOM does not need")
    return _Name(text)


def _named_by_text(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """The entries of a dictionary. Tuples in tuples, too deep for Python to tell apart, are no keys."""
    for key, value in pairs:
        if not isinstance(key, str):
            raise Refused("names an entry by something else than text")
        yield key, value


def _made(what: Any, given: Any) -> Any:
    if not isinstance(what, _Name):
        raise Refused("calls what cannot be called")
    return _MAKERS[what.text](*given)


def _mol(data: bytes) -> PickledMol:
    if not isinstance(data, bytes):
        raise Refused("holds a molecule that is not RDKit's")
    return PickledMol(data)


def _latin1(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 hold bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("asks for another encoding than latin1, which GEOM does not need")
    return text.encode("latin1")


def _kind(kind: str, *_: Any) -> _Number:
    if kind not in _NUMBERS:
        raise Refused(f"asks for numbers of the kind {kind[:10]!r}, which GEOM does not need" if isinstance(kind, str)
                      else "asks for numbers of no kind")
    return _Number(kind)


def _scalar(number: _Number, data: bytes) -> float | int:
    if not isinstance(number, _Number):
        raise Refused("holds a number of no kind")
    return np.frombuffer(data, f"<{number.kind}", count=1)[0].item()


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "NONE": lambda: None, "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}  # fmt: skip
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
             "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_MAKERS: dict[str, Callable[..., Any]] = {
    "rdkit.Chem.rdchem.Mol": _mol, "rdkit.Chem.Mol": _mol, "_codecs.encode": _latin1, "numpy.dtype": _kind,
    "numpy.core.multiarray.scalar": _scalar, "numpy._core.multiarray.scalar": _scalar,
}  # fmt: skip

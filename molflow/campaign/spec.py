"""What a campaign is to do: a YAML file, read strictly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from molflow.campaign.work import budget_fields, check
from molflow.extras import needed
from molflow.verification import Method

LARGEST_BATCH = 1000
"""Molecules that one job designs and one transaction stores."""

LARGEST = 2**63 - 1
"""Of any whole number: what databases and random generators take."""

MOST_MOLECULES, MOST_WORKERS = 10**7, 10**4
"""For one target; processes."""


class SpecError(ValueError):
    """A specification cannot be understood."""


@dataclass(frozen=True)
class Xtb:
    """Verification by GFN2-xTB, of every molecule that is valid and new: relaxed, or as generated."""

    relax: bool = True


@dataclass(frozen=True)
class Dft:
    """Verification by DFT, of the ``best`` molecules of each target, at xTB's geometry if there is one."""

    best: int
    relax: bool = False


@dataclass(frozen=True)
class Spec:
    """A campaign.

    One with `slurm` is a batch script, as it says what jobs run, and one with `scheduler` sends work to what is there:
    read a stranger's before it is used.

    Attributes:
        name: a word; part of the key of every molecule.
        targets: what `molflow.design` takes, a mapping for each target.
        molecules: how many for each target.
        seed: drives everything.
        batch: molecules that a job designs at once.
        atoms: size of every molecule, hydrogens counted; by default drawn as the data has them.
        budget: fields of `molflow.Budget`, where they shall differ from its defaults.
        xtb, dft: verification; None for none.
        database: path of an SQLite file (``.db``), or ``postgresql://user@host/name``.
        workers: local processes, or with `slurm` those of its jobs; by default one a core.
        scheduler: address of a Dask scheduler that is there already, ``tcp://host:8786``.
        slurm: arguments of ``dask_jobqueue.SLURMCluster``, such as ``queue``, ``cores``, ``memory``, ``walltime``.
    """

    name: str
    targets: tuple[Mapping[str, float | str], ...]
    molecules: int
    seed: int = 0
    batch: int = 16
    atoms: int | None = None
    budget: Mapping[str, int] = field(default_factory=dict)
    xtb: Xtb | None = Xtb()
    dft: Dft | None = None
    database: str = ""
    workers: int | None = None
    scheduler: str | None = None
    slurm: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, source: Spec | Mapping[str, Any] | str | os.PathLike[str]) -> Spec:
        """From a YAML file or a mapping; a relative path of the database is taken from the file's folder.

        Raises:
            FileNotFoundError: there is no such file.
            SpecError: anything in it is unknown, missing, or not what it has to be; the message names it.
        """
        if isinstance(source, Spec):
            return source
        if isinstance(source, Mapping):
            return _build(source, Path())
        path = Path(source)
        try:
            return _build(_parse(path.read_text(encoding="utf-8")), path.parent)
        except (SpecError, UnicodeDecodeError) as error:
            raise SpecError(f"{path}: {error}") from None
        except PermissionError as error:
            raise SpecError(f"{path}: {error.strerror}") from None

    @property
    def methods(self) -> dict[Method, bool]:
        """Those that verify, in order, and whether they relax the molecules."""
        settings: dict[Method, Xtb | Dft | None] = {"xtb": self.xtb, "dft": self.dft}
        return {method: wanted.relax for method, wanted in settings.items() if wanted}

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what comes out, in JSON's types: where and by how many it is worked out does not."""
        parts = {key: value for key, value in dataclasses.asdict(self).items()
                 if key not in ("database", "workers", "scheduler", "slurm")}
        return json.loads(json.dumps(parts))

    @property
    def digest(self) -> str:
        """SHA-256 of the `identity`, hexadecimal."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()


def _parse(text: str) -> Mapping[str, Any]:
    with needed():
        import yaml

    class Loader(yaml.SafeLoader):
        """YAML's own would let a key that is there twice overwrite the first, and aliases of aliases make a gigabyte of
        a few lines."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                where = self.peek_event().start_mark.line + 1
                raise SpecError(f"line {where}: aliases are not known here: write it out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            seen: set[str] = set()
            for key in keys:
                if key.value in seen:
                    raise SpecError(f"line {key.start_mark.line + 1}: {_word(key.value)} is given twice")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        found = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise SpecError(f"{where}not YAML ({getattr(error, 'problem', None) or 'unreadable characters'})") from None
    except SpecError:
        raise
    except Exception as error:  # PyYAML lets through whatever its conversions raise: of a 13th month, of !!int ""
        raise SpecError(f"not YAML ({type(error).__name__})") from None
    if not isinstance(found, Mapping):
        raise SpecError("a campaign needs name, targets and molecules")
    return found


def _build(values: Mapping[str, Any], folder: Path) -> Spec:
    _check_keys(values, [f.name for f in dataclasses.fields(Spec)], "")
    if missing := [key for key in ("name", "targets", "molecules") if values.get(key) is None]:
        raise SpecError(f"{missing[0]} is missing")
    given = {key: _READERS[key](key, value) for key, value in values.items()
             if value is not None or key in ("xtb", "dft")}
    spec = Spec(**given)
    if spec.scheduler and (spec.workers or spec.slurm):
        raise SpecError("a scheduler has its own workers: give scheduler, or workers with or without slurm")
    if spec.slurm is not None and spec.workers is None:
        raise SpecError("slurm needs workers: how many to ask for")
    database = spec.database or f"{spec.name}.db"
    if "://" not in database:
        try:
            database = str(folder / Path(database).expanduser())
        except RuntimeError as error:
            raise SpecError(f"database: {error}") from None
    return dataclasses.replace(spec, database=database)


def _shown(value: Any) -> str:
    """The beginning of it: what somebody has put there may be of any size."""
    try:
        return reprlib.repr(value)
    except ValueError:  # more digits than Python writes
        return "what it is"


def _word(key: Any) -> str:
    return " ".join(str(key)[:40].split())


def _check_keys(values: Mapping[Any, Any], known: list[str], inside: str) -> None:
    for key in values:
        if key not in known:
            near = get_close_matches(str(key)[:40], known, 1)
            advice = f"did you mean {inside}{near[0]}?" if near else f"known are {', '.join(known)}"
            raise SpecError(f"unknown key {inside}{_word(key)}: {advice}")


def _whole(low: int, high: int = LARGEST) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            between = f"from {low} to {high}" if type(value) is int and value > high else f"of at least {low}"
            raise SpecError(f"{key} must be a whole number {between}, not {_shown(value)}")
        return value
    return read


def _text(pattern: str, what: str) -> Callable[[str, Any], str]:
    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise SpecError(f"{key} must be {what}, not {_shown(value)}")
        return value
    return read


def _targets(key: str, value: Any) -> tuple[Mapping[str, float | str], ...]:
    if not isinstance(value, list | tuple) or not value:
        raise SpecError(f"{key} must be a list such as [{{gap: 5.0}}, {{gap: 6.0, mu: 1.5D}}], not {_shown(value)}")
    read = []
    for number, target in enumerate(value, start=1):
        if not isinstance(target, Mapping):
            raise SpecError(f"{key}: number {number} must be a mapping such as {{gap: 5.0}}, not {_shown(target)}")
        try:
            check(target)
        except ValueError as error:
            raise SpecError(f"{key}: number {number}: {error}") from None
        read.append({name: float(wish) if isinstance(wish, int) else wish for name, wish in target.items()})
    return tuple(read)


def _budget(key: str, value: Any) -> Mapping[str, int]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{key} must be a mapping such as {{lookups: 2}}, not {_shown(value)}")
    known = budget_fields()
    _check_keys(value, list(known), f"{key}.")
    return {name: _whole(known[name])(f"{key}.{name}", number) for name, number in value.items()}


def _xtb(key: str, value: Any) -> Xtb | None:
    if isinstance(value, Mapping):
        _check_keys(value, ["relax"], f"{key}.")
        return Xtb(_yes_or_no(f"{key}.relax", value.get("relax", True)))
    return Xtb() if value is not None and _yes_or_no(key, value) else None


def _dft(key: str, value: Any) -> Dft | None:
    if value is None or value is False:
        return None
    if not isinstance(value, Mapping) or "best" not in value:
        raise SpecError(f"{key} must be a mapping such as {{best: 10}}, or false, not {_shown(value)}")
    _check_keys(value, ["best", "relax"], f"{key}.")
    return Dft(_whole(1)(f"{key}.best", value["best"]), _yes_or_no(f"{key}.relax", value.get("relax", False)))


def _yes_or_no(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SpecError(f"{key} must be true or false, not {_shown(value)}")
    return value


def _slurm(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise SpecError(f"{key} must be a mapping such as {{queue: normal, cores: 8, memory: 16GB}}, "
                        f"not {_shown(value)}")
    return dict(value)


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "name": _text(r"[A-Za-z][\w-]*", "a word that begins with a letter"),
    "targets": _targets,
    "molecules": _whole(1, MOST_MOLECULES),
    "seed": _whole(0),
    "batch": _whole(1, LARGEST_BATCH),
    "atoms": _whole(1),
    "budget": _budget,
    "xtb": _xtb,
    "dft": _dft,
    "database": _text(r"([^\n\0]*/)?[^/\n\0]+\.db|postgres(ql)?://.+", "a path that ends in .db, or postgresql://user@host/name"),
    "workers": _whole(1, MOST_WORKERS),
    "scheduler": _text(r"\w+://.+", "an address such as tcp://host:8786"),
    "slurm": _slurm,
}

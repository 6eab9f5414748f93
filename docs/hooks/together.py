"""Docstrings that describe several parameters or attributes in one line: a row for each of them in the tables.

Griffe takes all of them for one name or, of attributes, what follows the first comma for a type.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import griffe


class Together(griffe.Extension):
    """Told of a package when all of it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Mend every docstring of it."""
        mend(pkg)


def mend(described: griffe.Object) -> None:
    """Those of a module, a class or a function, and of all that is in it."""
    for section in described.docstring.parsed if described.docstring else ():
        if section.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes):
            section.value = [one for item in section.value for one in apart(item, described)]
    for member in described.members.values():
        if not member.is_alias:
            mend(member)  # type: ignore[arg-type]


def apart(item: Any, described: Any) -> list[Any]:
    """The item itself or, of several names, one for each, with the annotation and the default that the code has."""
    if "," not in item.name:
        return [item]
    ones = []
    for name in f"{item.name} {item.annotation or ''}".replace(",", " ").split():
        one = copy(item)
        one.name = name
        if isinstance(item, griffe.DocstringParameter):
            code = next((parameter for parameter in described.parameters if parameter.name == name), None)
            one.value = getattr(code, "default", None)
        else:
            code = described.members.get(name)
        one.annotation = getattr(code, "annotation", None)
        ones.append(one)
    return ones

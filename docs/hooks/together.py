"""Docstrings that describe several parameters or attributes in one line: a row for each of them in the tables.

Griffe takes the first name of ``rate, rate_matrix: learning rates`` for the name and the rest for its type.
"""

from __future__ import annotations

from typing import Any

import griffe

Items = list[Any]


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


def apart(item: Any, described: griffe.Object) -> Items:
    """The item itself or, of several names, one for each with the annotation that the code has."""
    if not item.name.endswith(","):
        return [item]
    names = f"{item.name} {item.annotation}".replace(",", " ").split()
    if isinstance(described, griffe.Function):
        return [griffe.DocstringParameter(name, annotation=described.parameters[name].annotation,
                                          description=item.description, value=described.parameters[name].default)
                for name in names]
    return [griffe.DocstringAttribute(name, annotation=getattr(described.members.get(name), "annotation", None),
                                      description=item.description) for name in names]

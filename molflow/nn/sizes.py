"""What a network's settings may be, whoever wrote them."""

from __future__ import annotations

import dataclasses
from typing import Any

LARGEST = {"layers": 64, "levels": 12, "blocks": 64}
"""Of what is built one by one; anything else is at most `WIDEST`."""

WIDEST = 4096


def check_sizes(config: Any) -> None:
    """Raise ValueError unless all fields of a dataclass are numbers above 0, whole ones where the default is, and none
    too large to be meant; or yes or no, where the default is."""
    for f in dataclasses.fields(config):
        value, most = getattr(config, f.name), LARGEST.get(f.name, WIDEST)
        if isinstance(f.default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"{f.name} must be true or false, not {str(value)[:40]!r}")
            continue
        kinds = (int,) if isinstance(f.default, int) else (int, float)
        if type(value) not in kinds or not 0 < value <= most:
            what = "a whole number" if kinds == (int,) else "a number"
            raise ValueError(f"{f.name} must be {what} above 0 and at most {most}, not {str(value)[:40]!r}")

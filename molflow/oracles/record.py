"""What every answer of an oracle says of itself, and what is said where there can be none."""

from __future__ import annotations

from dataclasses import dataclass


class OracleMissing(ValueError):
    """The program behind an oracle is not installed; the message names the extra that brings it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calculation:
    """Where a calculated value comes from. Each kind of answer adds its values, with their units.

    A calculation that fails is an answer too: it has a fault, and NaN or None where a value would stand.

    Attributes:
        method: level of theory, e.g. "GFN2-xTB".
        version: program and version, e.g. "tblite 0.8.0".
        seconds: wall-clock time.
        fault: why it did not converge, in a few words, details in brackets; empty if it did.
    """

    method: str
    version: str
    seconds: float
    fault: str = ""

    @property
    def converged(self) -> bool:
        return not self.fault

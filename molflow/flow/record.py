"""Records: frozen dataclasses whose every tensor has one row a sample, handled by whole rows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

from torch import Tensor

from molflow.flow.state import per_sample


@dataclass(frozen=True)
class Record:
    """Base of records; fields are tensors (b, ...) or records of the same b."""

    def rows(self, keep: Tensor) -> Self:
        """The rows `keep` (b,) bool."""
        values = self._values()
        return replace(
            self, **{k: v.rows(keep) if isinstance(v, Record) else v[keep] for k, v in values.items()}
        )

    def where(self, mask: Tensor, other: Self) -> Self:
        """These rows where mask (b,) is true, those of `other` elsewhere."""
        mine, theirs = self._values(), other._values()
        chosen = {
            k: v.where(mask, theirs[k]) if isinstance(v, Record) else v.where(per_sample(mask, v), theirs[k])
            for k, v in mine.items()
        }
        return replace(self, **chosen)

    def _values(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

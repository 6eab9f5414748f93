"""The packages that only campaigns need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ExtraMissing(ValueError):
    """A package of the extra `campaign` is not installed."""


@contextmanager
def needed() -> Iterator[None]:
    """Around their imports: ExtraMissing says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"campaigns need {error.name}: `pip install 'molflow[campaign]'`") from None

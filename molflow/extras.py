"""What the extras bring, `pip install 'molflow[train]'`, and what is said where something of theirs is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning", "tensorboard", "tqdm", "qm9pack", "msgpack"),
    "oracles": ("tblite", "pyscf", "geometric"),
    "oracles-gpu": ("gpu4pyscf", "cupy"),
    "campaign": ("dask", "distributed", "dask_jobqueue", "yaml", "ase_db_backends", "psycopg2"),
    "signals": ("cv2", "soundfile"),
    "adapters": ("diffusers", "transformers"),
    "benchmarks": ("posebusters", "skimage", "sklearn", "pywt", "flip_evaluator", "pystoi", "playwright", "psutil",
                   "torchdiffeq", "tqdm"),
    "scatter": ("torch_scatter",),
}
"""The modules of pyproject.toml's extras."""


class ExtraMissing(ValueError):
    """A package that an extra brings is not installed; the message says what to install."""


@contextmanager
def needed() -> Iterator[None]:
    """Around imports, or all that imports on its way: ExtraMissing in place of ModuleNotFoundError."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or getattr(error.__cause__, "name", None)  # Dask words its own error and names nothing
        if name is None or _extra(name) is None:
            raise
        raise _missing(name) from None


def require(*modules: str) -> None:
    """Raise ExtraMissing where one of the modules is not installed: before work that would come to it late."""
    for name in modules:
        if find_spec(name) is None:
            raise _missing(name)


def _extra(module: str) -> str | None:
    return next((extra for extra, modules in EXTRAS.items() if module.partition(".")[0] in modules), None)


def _missing(module: str) -> ExtraMissing:
    package = module.partition(".")[0]
    return ExtraMissing(f"{package} is not installed: `pip install 'molflow[{_extra(module)}]'` brings it")

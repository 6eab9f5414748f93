"""molflow: molecules with the properties you ask for, by optimising the source point of an equivariant flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molflow.designer import DesignRun, design, sample
    from molflow.grade import evaluate, likelihood, predict
    from molflow.installation import info
    from molflow.report import write_report
    from molflow.search import Budget
    from molflow.verification import Verdict, verify

__version__ = "0.1.0"
__all__ = ["Budget", "DesignRun", "Verdict", "__version__", "design", "evaluate", "info", "likelihood", "predict",
           "sample", "verify", "write_report"]

_HOME = {"Budget": "search", "DesignRun": "designer", "design": "designer", "sample": "designer",
         "evaluate": "grade", "info": "installation", "likelihood": "grade", "predict": "grade",
         "write_report": "report", "Verdict": "verification", "verify": "verification"}


def __getattr__(name: str) -> Any:
    # torch and rdkit take seconds to import: only when something of theirs is asked for
    import importlib

    if name == "campaign":
        return importlib.import_module("molflow.campaign")
    if name in _HOME:
        return getattr(importlib.import_module(f"molflow.{_HOME[name]}"), name)
    raise AttributeError(f"module 'molflow' has no attribute {name!r}")

"""Flows of pictures and of sound on the same solver core: nothing in ``molflow.flow`` is changed for them."""

from molflow.adapters.adapter import Adapter

__all__ = ["Adapter"]

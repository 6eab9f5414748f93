"""Property networks that were trained apart, put together in one file, and how far their doubt can be believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from molflow import provenance
from molflow.data.store import MoleculeStore
from molflow.models import EXPECTED, Predictor
from molflow.nn.ensemble import Ensemble
from molflow.nn.weights import Card, WeightsError, save_weights

CPU = torch.device("cpu")

HELD_OUT = 2000
"""Molecules of the validation split that errors are measured on."""


def join(paths: Sequence[Path], store: MoleculeStore, out: Path) -> dict[str, Any]:
    """Write the networks of several files as one guide or evaluator to ``out``, with a card; returns its metrics.

    Args:
        store: the data that they were trained on.
    Raises:
        WeightsError: fewer than two files, networks of different sizes, or trained on different molecules.
        DataError: the data are others.
    """
    loaded = [Predictor.load(path, "cpu") for path in paths]
    networks: list[Any] = [member for one in loaded for member in one.network.members]
    if len(networks) < 2:
        raise WeightsError("an ensemble needs at least two networks")
    first = {key: value for key, value in loaded[0].card.network.items() if key != "members"}
    for one in loaded[1:]:
        if {key: value for key, value in one.card.network.items() if key != "members"} != first:
            raise WeightsError(f"{one.path} holds a network of other sizes than {loaded[0].path}")
        if any(one.card.training.get(key) != loaded[0].card.training.get(key) for key in ("data", "part")):
            raise WeightsError(f"{one.path} was trained on other molecules than {loaded[0].path}")
    trained = [one.card.training for one in loaded]
    training = {**trained[0], "members": trained, "commit": provenance.commit(), "machine": provenance.machine(),
                "command": " ".join(["molflow train join", *(path.name for path in paths)]),
                **{key: sum(one.get(key, 0) for one in trained) for key in ("molecules_seen", "hours")}}
    names, vocabulary, resolution = loaded[0].network.properties, loaded[0].vocabulary, loaded[0].network.resolution
    if any(one.network.properties != names for one in loaded):
        raise WeightsError("the networks read different properties")
    card = Card("property", {**first, "members": len(networks)}, training, vocabulary=dataclasses.asdict(vocabulary),
                properties=names, units=loaded[0].units, resolution=resolution)
    members = torch.as_tensor(store.parts()["valid"])[:HELD_OUT]
    batch, truth = store.batch(members), store.columns(names)[members]
    alone = torch.stack([Predictor(Ensemble([one], None, resolution), card, out, CPU, vocabulary).predict(batch)
                         for one in networks])
    ensemble = Ensemble(networks, best_weights(alone, truth, list(resolution.values())), resolution)
    error, doubt = (ensemble.mean(alone) - truth).abs(), ensemble.doubt(alone)
    means = zip(names, error.double().nanmean(0).tolist(), strict=True)
    card.metrics.update((name, mean) for name, mean in means if mean == mean)  # not where none was known
    card.metrics[EXPECTED] = expected_errors(doubt, error, names)
    save_weights(out, ensemble, card)
    return card.metrics


def best_weights(said: Tensor, truth: Tensor, resolution: Sequence[float]) -> list[float]:
    """For each of M networks a weight, none below 0 and 1 in all, with which what they say (M, B, P) of properties of
    these resolutions is nearest the truth (B, P), NaN where there is none, in the resolution's units and in squares."""
    scaled = ((said - truth) / torch.tensor(resolution))[:, truth.isfinite()].double()
    first, rest = scaled[0], scaled[1:]
    weights = nnls((first - rest).T.numpy(), first.numpy())[0]
    weights = weights / max(1.0, weights.sum())
    return [1 - weights.sum(), *weights]


def expected_errors(doubt: Tensor, error: Tensor, names: Sequence[str]) -> dict[str, list[float]]:
    """For each property the a and b, neither below 0, of |error| = a + b doubt that fit doubts (B,) and errors (B, P),
    NaN where there is none, best."""
    design = torch.stack([torch.ones_like(doubt), doubt], 1).double().numpy()
    columns = zip(names, error.double().numpy().T, strict=True)
    return {name: nnls(design[known], column[known])[0].tolist()
            for name, column in columns if (known := np.isfinite(column)).any()}

"""Weights on disk: safetensors, which cannot run code, and a JSON card beside them that says what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from molflow.molecules.elements import QM9, Vocabulary
from molflow.writing import written_whole

FORMAT = "molflow-weights-1"
SHIPPED = Path(__file__).parent.parent / "weights"
MODELS = {"qm9": SHIPPED, "moses3d": SHIPPED / "moses3d"}
"""Folders of the models that design molecules: a generator, a guide, an evaluator each."""


class WeightsError(ValueError):
    """A file of weights is missing, damaged, or of another model."""


@dataclass(frozen=True)
class Card:
    """What a file of weights is.

    Attributes:
        kind: ``generator``, ``property`` or ``signal``.
        network: the network's settings.
        training: data, part, molecules seen, command, commit, hours, hardware, seed.
        metrics: what was measured of these weights, and on what.
        prior: for a generator, ``molflow.data.prior.Prior`` of its training molecules.
        vocabulary: the `Vocabulary` that the network speaks; None, QM9's, in cards from before there were others.
        properties: what the columns of a property network are; None, QM9's six, in older cards.
    """

    kind: str
    network: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, Any] | None = None
    vocabulary: dict[str, Any] | None = None
    properties: Sequence[str] | None = None

    @property
    def data(self) -> str:
        """The name of the data set that it was trained on."""
        return str(self.training.get("settings", {}).get("data", "qm9"))

    def words(self) -> Vocabulary:
        """The vocabulary. Raises TypeError or ValueError where the card's makes no sense."""
        if self.vocabulary is None:
            return QM9
        return Vocabulary(**{key: tuple(values) for key, values in dict(self.vocabulary).items()})


def save_weights(path: Path, network: nn.Module, card: Card) -> None:
    """Write ``path`` (safetensors) and its card, ``path`` with suffix .json, both or neither. Raises OSError.

    Who is killed between the two has weights without a card, which nobody takes for more than that.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    file = path.with_suffix(".json")
    with written_whole(file) as card_part:
        card_part.write_text(json.dumps({"format": FORMAT, **vars(card)}) + "\n")
        with written_whole(path) as part:
            part.write_bytes(save(tensors, {"format": FORMAT}))
            file.unlink(missing_ok=True)  # the one of the weights before


def shipped(model: str, role: str) -> Path:
    """The file of one of `MODELS`: its ``generator``, ``guide`` or ``evaluator``. Raises WeightsError."""
    if model not in MODELS:
        raise WeightsError(f"unknown model {model!r}: known are {', '.join(MODELS)}")
    return MODELS[model] / f"{role}.safetensors"


def read_card(path: Path, kind: str) -> Card:
    """The card beside a file of weights. Raises WeightsError in one sentence."""
    card = path.with_suffix(".json")
    for file in (path, card):
        if not file.is_file():
            raise WeightsError(f"no weights at {path}: {file.name} is missing")
    try:
        values = json.loads(card.read_text())
        if values.pop("format") != FORMAT:
            raise WeightsError(f"{card} is not a molflow weights card")
        read = Card(**values)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{card} is damaged ({error})") from None
    if read.kind != kind:
        raise WeightsError(f"{path} holds a {read.kind} model, not a {kind} model")
    return read


def fill(network: nn.Module, path: Path) -> None:
    """Load weights into a network made from their card. Raises WeightsError in one sentence."""
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path} is damaged or does not fit its card ({reason})") from None

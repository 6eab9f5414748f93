"""Weights on disk: safetensors, which cannot run code, and a JSON card beside them that says what they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from molflow.molecules.elements import QM9, Vocabulary
from molflow.wording import in_a_line
from molflow.writing import written_whole

FORMAT = "molflow-weights-1"
Network = TypeVar("Network", bound=nn.Module)
SHIPPED = Path(__file__).parent.parent / "weights"
MODELS = {"qm9": SHIPPED, "moses3d": SHIPPED / "moses3d"}
"""Folders of the models that design molecules: of each of the `ROLES` one."""

ROLES = "generator", "guide", "evaluator"


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
        units, resolution: of each property; None, those of `molflow.nn.property`, in older cards.
    """

    kind: str
    network: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, Any] | None = None
    vocabulary: dict[str, Any] | None = None
    properties: Sequence[str] | None = None
    units: Mapping[str, str] | None = None
    resolution: Mapping[str, float] | None = None

    @property
    def data(self) -> str:
        """The name of the data set that it was trained on."""
        return str(self.training.get("settings", {}).get("data", "qm9"))

    def check(self) -> None:
        """Raise TypeError or ValueError where anything is of another kind than it has to be."""
        parts = {"network": self.network, "training": self.training, "metrics": self.metrics, "prior": self.prior or {},
                 "vocabulary": self.vocabulary or {}, "settings": self.training.get("settings", {})}
        for name, part in parts.items():
            if not isinstance(part, Mapping):
                raise TypeError(f"{name} is not a mapping")
        if not self.data.isidentifier():
            raise ValueError(f"{self.data[:40]!r} is no data set")
        self.words()

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


def read_card(path: Path, kind: str | None) -> Card:
    """The card beside a file of weights of that kind, or of any. Raises WeightsError in one sentence."""
    card = path.with_suffix(".json")
    for file in (path, card):
        if not file.is_file():
            raise WeightsError(f"no weights at {path}: {file.name} is missing")
    with from_card(path):
        values = json.loads(card.read_bytes())
        if values.pop("format") != FORMAT:
            raise WeightsError(f"{card} is not a molflow weights card")
        read = Card(**values)
        read.check()
    if kind and read.kind != kind:
        raise WeightsError(f"{path} holds a {str(read.kind)[:40]!r} model, not a {kind} model")
    return read


@contextmanager
def from_card(path: Path) -> Iterator[None]:
    """Around what is made from the card of a file of weights: whatever a card that makes no sense has Python or torch
    raise becomes a WeightsError in one sentence."""
    try:
        yield
    except WeightsError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{path.with_suffix('.json')} is damaged ({in_a_line(error)})") from None


def built(make: Callable[[], Network], path: Path) -> Network:
    """The network of a card, unless the file of its weights is too small to hold it: a card must not fill the memory.

    Raises ValueError.
    """
    with torch.device("meta"):  # takes none
        numbers = sum(parameter.numel() for parameter in make().parameters())
    if 2 * numbers > path.stat().st_size:
        raise ValueError(f"{path.name} is too small for the network")
    return make()


def fill(network: nn.Module, path: Path) -> None:
    """Load weights into a network made from their card. Raises WeightsError in one sentence."""
    try:
        # not by load_file, which never gives back 64 bytes of each tensor (safetensors 0.8)
        network.load_state_dict(load(path.read_bytes()))
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or does not fit its card ({in_a_line(error)})") from None

"""What a training begins with instead of random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from molflow.nn.velocity import VelocityConfig, VelocityNetwork
from molflow.nn.weights import WeightsError, fill, from_card, read_card

Names = list[tuple[str, int]]
"""What the columns or rows of a tensor are for: ``("types", 6)`` is carbon's."""


def begin_with(network: nn.Module, path: Path) -> None:
    """Load the weights of ``path`` into the network that is to be trained.

    A velocity network of the same widths may speak another vocabulary, for instance of QM9's five elements: what is of
    a class that both know is taken over, and a new class begins with zeros, so that at first the network says what the
    other did.

    Raises:
        WeightsError: they are not of such a network.
    """
    if not isinstance(network, VelocityNetwork):
        fill(network, path)
        return
    card = read_card(path, "generator")
    with from_card(path):
        config = VelocityConfig(**card.network)
    if config != network.config:
        raise WeightsError(f"{path} has other sizes, {config}, than the network to be trained, {network.config}")
    other = VelocityNetwork(card.words(), config)
    fill(other, path)
    theirs, ours = (_named(one) for one in (other, network))
    taken = other.state_dict()
    for name, fresh in network.state_dict().items():
        if name in ours:
            dim, names = ours[name]
            shared = [word for word in theirs[name][1] if word in names]
            there, here = (torch.tensor([some.index(word) for word in shared]) for some in (theirs[name][1], names))
            taken[name] = torch.zeros_like(fresh).index_copy_(dim, here, taken[name].index_select(dim, there))
    network.load_state_dict(taken)


def _named(network: VelocityNetwork) -> dict[str, tuple[int, Names]]:
    """The tensors whose shapes go with the vocabulary: along which dimension, and what for."""
    atom, pair = network.embed_atom, network.embed_pair
    words = network.vocabulary
    said = _each("types", words.elements) + _each("charges", words.charges)
    bonds = _each("bonds", words.bonds)

    def read(names: Names, width: int) -> Names:
        before = names + [(f"past {what}", value) for what, value in names]
        return before + _each("else", tuple(range(width - len(before))))

    return {
        "embed_atom.weight": (1, read(said, atom.in_features)), "embed_pair.weight": (1, read(bonds, pair.in_features)),
        "read_atom.1.weight": (0, said), "read_atom.1.bias": (0, said),
        "read_pair.3.weight": (0, bonds), "read_pair.3.bias": (0, bonds),
    }  # fmt: skip


def _each(what: str, values: tuple[int, ...]) -> Names:
    return [(what, value) for value in values]

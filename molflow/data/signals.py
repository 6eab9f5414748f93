"""Pictures and recordings to train on: whole numbers of any size, and crops of them as floats in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from molflow.data.store import DataError, write_tensors
from molflow.wording import in_a_line

FORMAT = "molflow-signals-1"
HALF = {torch.uint8: 127.5, torch.int16: 32768.0}
"""What whole numbers are divided by to lie within an interval of length 2."""


@dataclass(frozen=True)
class SignalStore:
    """All signals of a data set, in memory.

    Attributes:
        train, held_out: stacks (n, C, *size) of signals of one size, uint8 (pictures) or int16 (sound); C and the
            number of axes are the same in all.
        source: free text, where the data came from.
    """

    train: list[Tensor]
    held_out: list[Tensor]
    source: str

    @property
    def unit(self) -> str:
        """What there are many of."""
        return "pictures" if self.train[0].dtype == torch.uint8 else "clips"

    def crops(self, count: int, size: int, generator: torch.Generator, *, held_out: bool = False) -> Tensor:
        """Crops (count, C, size, ...) in [-1, 1], of each signal in proportion to its length, of a picture to that of a
        side: the larger sizes of the same pictures, which are smoother, would else be nearly all that is seen.

        A signal shorter than ``size`` lies at a random place among zeros: silence, or black.
        """
        stacks = self.held_out if held_out else self.train
        weights = torch.tensor([len(x) * max(1.0, x[0, 0].numel() ** (1 / x[0, 0].dim()) / size) for x in stacks])
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        return torch.stack([_crop(stacks[i], size, generator) for i in chosen])

    def save(self, path: Path) -> None:
        """Raises OSError; what was there before stays."""
        tensors = {f"{part}/{number:06}": x.contiguous() for part in ("train", "held_out")
                   for number, x in enumerate(getattr(self, part))}
        write_tensors(path, tensors, {"format": FORMAT, "source": self.source})

    @classmethod
    def load(cls, path: Path) -> SignalStore:
        """Raises DataError where the file is missing, damaged or of another format."""
        if not path.is_file():
            raise DataError(f"no prepared data at {path}: run `molflow data prepare {path.stem}` first")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise DataError(f"{path} holds neither pictures nor sound: prepare it again")
                parts: dict[str, list[Tensor]] = {"train": [], "held_out": []}
                for key in sorted(file.keys()):
                    parts[key.partition("/")[0]].append(file.get_tensor(key))
            store = cls(parts["train"], parts["held_out"], header["source"])
            store.check()
            return store
        except DataError:
            raise
        except (SafetensorError, KeyError, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({in_a_line(error)}): prepare it again") from None

    def check(self) -> None:
        """Raise ValueError where there is nothing to train on, or the signals are not all of one kind."""
        kinds = {(x.dtype, x.dim(), x.shape[1:2]) for x in (*self.train, *self.held_out)}
        if not self.train or len(kinds) != 1 or not all(x.numel() for x in (*self.train, *self.held_out)):
            raise ValueError("the signals are not all of one kind")
        if self.train[0].dtype not in HALF or self.train[0].dim() < 3:
            raise ValueError("the signals are no pictures and no sound")


def to_float(x: Tensor) -> Tensor:
    """uint8 or int16 to float32 in [-1, 1]."""
    return x.float() / HALF[x.dtype] - float(x.dtype == torch.uint8)


def _crop(stack: Tensor, size: int, generator: torch.Generator) -> Tensor:
    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    signal = stack[draw(len(stack))]
    for axis in range(1, signal.dim()):
        room = signal.shape[axis] - size
        if room >= 0:
            signal = signal.narrow(axis, draw(room + 1), size)
        else:
            before = draw(1 - room)
            shape = list(signal.shape)
            shape[axis] = size
            padded = signal.new_zeros(shape)
            padded.narrow(axis, before, signal.shape[axis]).copy_(signal)
            signal = padded
    return to_float(signal)

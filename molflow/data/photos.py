"""Photographs to cut patches from: those among the backgrounds of three Debian packages.

Unpacked with ``apt-get download mate-backgrounds plasma-workspace-wallpapers && dpkg -x``. Both packages hold drawings
too; photographs are named here one by one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molflow.data.signals import SignalStore
from molflow.data.store import DataError

MATE = ("Aqua", "Blinds", "Dune", "FreshFlower", "GreenMeadow", "LadyBird", "RainDrops", "Storm", "TwoWings", "Wood",
        "YellowFlower")
PLASMA = ("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite",
          "OneStandsOut", "summer_1am")
HELD_OUT = "usr/share/backgrounds/mate/nature/Garden.jpg", "usr/share/wallpapers/Path/contents/images/2560x1600.jpg"
TRAIN = (*(f"usr/share/backgrounds/mate/nature/{name}.jpg" for name in MATE),
         *(f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg" for name in PLASMA))

WIDTHS = 320, 640, 1280
"""Pixels to which each photograph is reduced: at full size there is little to see in 32 pixels but blur and grain."""


def read(folder: Path) -> SignalStore:
    """The photographs under ``folder``, where the packages were unpacked, at several sizes. Raises DataError."""
    train = [size for name in TRAIN for size in _sizes(folder / name)]
    held_out = [size for name in HELD_OUT for size in _sizes(folder / name)]
    return SignalStore(train, held_out, f"{len(TRAIN)} photographs of Debian's mate-backgrounds and "
                                        f"plasma-workspace-wallpapers, {', '.join(map(str, WIDTHS))} pixels wide")


def _sizes(path: Path) -> list[Tensor]:
    """(1, 3, H, W) uint8 for each of the widths."""
    import cv2

    picture = cv2.imread(str(path))
    if picture is None:
        raise DataError(f"{path} cannot be read as a picture")
    height, width = picture.shape[:2]
    reduced = [cv2.resize(picture, (w, round(height * w / width)), interpolation=cv2.INTER_AREA) for w in WIDTHS]
    return [torch.from_numpy(np.ascontiguousarray(x[..., ::-1].transpose(2, 0, 1)))[None] for x in reduced]

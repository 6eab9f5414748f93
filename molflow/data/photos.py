"""Photographs to cut patches from: backgrounds of four Debian packages, and sample pictures of a fifth.

Unpacked with ``apt-get download mate-backgrounds plasma-workspace-wallpapers lomiri-wallpapers-16.04
lomiri-wallpapers-20.04 opencv-doc && dpkg -x``. They hold drawings too; photographs are named here one by one.
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
LOMIRI = ("Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Kleiber_by_Lukas_Baubkus", "Picture_0B_by_freespace",
          "Picture_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi", "free_by_Peter_Nerlich",
          "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich", "life_by_Aitzol_Berasategi",
          "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi")
OPENCV = ("aero1.jpg", "aloeL.jpg", "apple.jpg", "baboon.jpg", "basketball1.png", "board.jpg", "butterfly.jpg",
          "chicky_512.png", "graf1.png", "home.jpg", "leuvenA.jpg", "messi5.jpg", "orange.jpg", "rubberwhale1.png",
          "squirrel_cls.jpg")
SAMPLES = "usr/share/doc/opencv-doc/examples/data"
HELD_OUT = ("usr/share/backgrounds/mate/nature/Garden.jpg", "usr/share/wallpapers/Path/contents/images/2560x1600.jpg",
            f"{SAMPLES}/building.jpg", f"{SAMPLES}/fruits.jpg")
TRAIN = (*(f"usr/share/backgrounds/mate/nature/{name}.jpg" for name in MATE),
         *(f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg" for name in PLASMA),
         *(f"usr/share/backgrounds/{name}.jpg" for name in LOMIRI),
         *(f"{SAMPLES}/{name}" for name in OPENCV))

WIDTHS = 320, 480, 640
"""Pixels to which each photograph that has more is reduced: at full size there is little to see in 32 pixels but blur
and grain."""


def read(folder: Path) -> SignalStore:
    """The photographs under ``folder``, where the packages were unpacked, at several sizes. Raises DataError."""
    train = [size for name in TRAIN for size in _sizes(folder / name)]
    held_out = [size for name in HELD_OUT for size in _sizes(folder / name)]
    return SignalStore(train, held_out,
                       f"{len(TRAIN)} photographs of Debian's mate-backgrounds, plasma-workspace-wallpapers, "
                       f"lomiri-wallpapers and opencv-doc, {', '.join(map(str, WIDTHS))} pixels wide")


def _sizes(path: Path) -> list[Tensor]:
    """(1, 3, H, W) uint8 for each of the widths, none of them enlarged."""
    import cv2

    picture = cv2.imread(str(path))
    if picture is None:
        raise DataError(f"{path} cannot be read as a picture")
    height, width = picture.shape[:2]
    reduced = [cv2.resize(picture, (w, round(height * w / width)), interpolation=cv2.INTER_AREA)
               for w in WIDTHS if w <= width]
    return [torch.from_numpy(np.ascontiguousarray(x[..., ::-1].transpose(2, 0, 1)))[None] for x in reduced]

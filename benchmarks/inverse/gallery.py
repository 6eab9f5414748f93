"""Pictures side by side, and below each other what every method made of them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

LARGER, GAP, MARGIN = 3, 4, 130
"""How many times larger pixels are shown; pixels between pictures; and for the names."""


def strip(pictures: Tensor, size: tuple[int, int] | None = None) -> bytes:
    """PNG of pictures (B, C, H, W) in [-1, 1], one beside the other; of smaller ones with pixels as large as needed."""
    if size is not None and tuple(pictures.shape[2:]) != size:
        pictures = functional.interpolate(pictures, size, mode="nearest")
    framed = functional.pad(pictures.clamp(-1, 1), (0, GAP // 2, 0, 0), value=1.0)
    pixels = ((framed + 1) * 127.5).round().byte().expand(-1, 3, -1, -1).permute(2, 0, 3, 1).numpy()
    return _png(Image.fromarray(np.ascontiguousarray(pixels.reshape(pixels.shape[0], -1, 3))))


def gallery(lines: Mapping[str, bytes]) -> bytes:
    """PNG of strips with their names."""
    strips = [Image.open(io.BytesIO(png)) for png in lines.values()]
    wide, high = strips[0].width * LARGER, strips[0].height * LARGER + GAP
    page = Image.new("RGB", (MARGIN + wide, high * len(strips)), "white")
    for place, (name, line) in enumerate(zip(lines, strips, strict=True)):
        page.paste(line.resize((wide, high - GAP), Image.Resampling.NEAREST), (MARGIN, place * high))
        ImageDraw.Draw(page).text((MARGIN - 10, place * high + high / 2), name, "black", anchor="rm", font_size=15)
    return _png(page)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="png")
    return file.getvalue()

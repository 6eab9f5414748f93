"""Tiles cover a signal, come together again, and know what they cannot know."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molflow.adapters import Adapter
from molflow.adapters.adapter import plain
from molflow.inverse.operators import Blur, gaussian_kernel
from molflow.inverse.pictures import Picture
from molflow.inverse.restoration import blurred, holes, noisy, picture, shrunk, signals
from molflow.inverse.solve import Recipe
from molflow.inverse.tiles import Tiling


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([1, 2, 4]))
def test_what_is_cut_is_joined_again(down: int, right: int, step: int) -> None:
    size = (16 + step * down, 24 + step * right)
    tiling = Tiling.of(size, (16, 24), step)
    assert all(start % step == 0 for axis in tiling.starts for start in axis)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    tiles = tiling.cut(x)
    assert tiles.shape == (2 * len(tiling.places), 3, 16, 24)
    torch.testing.assert_close(tiling.join(tiles), x)
    for axis, tile in zip(tiling.starts, (16, 24), strict=True):
        assert all(after - before <= tile - tile // 4 + step for before, after in pairwise(axis))


def test_what_is_measured_inside_of_a_tile_depends_on_nothing_outside() -> None:
    tiling, blur = Tiling.of((16, 40), (16, 16)), Blur(gaussian_kernel(1.0))
    x = torch.randn(1, 1, 16, 40, generator=torch.Generator().manual_seed(0))
    whole, apart = tiling.cut(blur(x)), blur(tiling.cut(x))
    inner = tiling.inner(3)
    torch.testing.assert_close(whole * inner, apart * inner)
    assert not torch.allclose(whole, apart)
    assert inner[0, 0, :, :13].all() and not inner[0, 0, :, 13:].any()  # the picture's own edge is no edge of a tile


def flat(channels: int = 3) -> Adapter:
    """A flow that stands still: whatever is wanted is found at once, and solving is a linear problem."""
    return Adapter(plain(lambda t, x: torch.zeros_like(x)), (channels, 16, 16))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("colours", [1, 3])
def test_grey_and_colour_with_either_prior(channels: int, colours: int) -> None:
    clean = torch.rand(channels, 20, 36, generator=torch.Generator().manual_seed(0)) - 0.5
    told: list[float] = []
    *_, found = picture(Picture(clean, 16), flat(colours), noisy(0.01), method=Recipe(evals=40),
                    progress=lambda what, share: told.append(share))
    assert found.pixels.shape == clean.shape and found.bits == 16 and told[-1] == 1.0
    assert (found.pixels - clean).abs().max() < 0.05


def test_known_pixels_stay_as_they_are_and_larger_pictures_have_the_right_size() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 3, 24, 40, generator=generator) - 0.5
    known = torch.rand(1, 1, 24, 40, generator=generator) > 0.3
    *_, filled = signals(clean * known, flat(), holes(known, 0.0), method=Recipe(evals=20))
    assert torch.equal(torch.where(known, filled, 0), clean * known) and filled[:, :, ~known[0, 0]].abs().max() > 0.1
    *_, larger = signals(clean, flat(), shrunk(2, 0.0), method=Recipe(evals=40))
    assert larger.shape == (1, 3, 48, 80)
    assert (torch.nn.functional.avg_pool2d(larger, 2) - clean).square().mean().sqrt() < 0.12
    kernel = gaussian_kernel(0.6)
    *_, sharp = signals(Blur(kernel)(clean), flat(), blurred(kernel, 0.0), method=Recipe(evals=60))
    assert (Blur(kernel)(sharp) - Blur(kernel)(clean)).square().mean().sqrt() < 0.08


def test_what_is_smaller_than_the_prior_is_refused() -> None:
    with pytest.raises(ValueError, match="12 x 20 pixels is smaller than the prior's 16 x 16 pixels"):
        picture(Picture(torch.zeros(3, 20, 12), 8), flat(), noisy(0.1))
